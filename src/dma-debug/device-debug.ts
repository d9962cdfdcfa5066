/**
 * Checked mode for one device: what it has mapped, and the checks of each call against that.
 *
 * Idea: the front door's paths tell it of every call, before an unmap and after a map; it keeps one entry for each live
 * mapping (each segment of a list, each range, each link) and finds it again by address. Nothing here throws or changes
 * what the call does.
 * Not for: drivers; they look through {@link DmaDebug}. Who frees by bare address what this library does not know of (another
 * language's bindings) may call it as the front door does.
 * Specified by: behaviour of Linux 7.2 DMA debugging; `linuxCompatible` gives its answers, gaps included.
 */
import { type Direction, DmaError, type IovaPage } from "../base/index.ts";
import {
  type AllocationKind,
  ATTRIBUTE_BITS,
  attributeBits,
  type DeviceWatch,
  type DmaDevice,
  type Granules,
  type IovaRange,
  type MappedList,
  type Path,
  type Terms,
} from "../dma/index.ts";
import { AccessChecks } from "./access-checks.ts";
import type { CallSite } from "./call-site.ts";
import type { DebugStore } from "./debug-store.ts";
import type { Live } from "./live.ts";
import { bestFit, MappingChecks } from "./mapping-checks.ts";
import { RangeChecks } from "./range-checks.ts";
import type { Asked, LiveMapping } from "./records.ts";
import { reportLive, reportPrivate, reportUnknownFree, reportUnknownSync } from "./unmatched.ts";
import { WatchedPath } from "./watched-path.ts";
import { WatchedRange } from "./watched-range.ts";

/**
 * DMA debugging of one device. Drivers look through {@link DmaDebug}; bindings that free by bare addresses may call it
 * as {@link Dma} does.
 */
export class DeviceDebug implements DeviceWatch {
  /** The device that it looks over. */
  readonly device: DmaDevice;
  /** What the device has mapped. */
  readonly live: Live;
  /** Checks of its two-step ranges. */
  readonly twoStep: RangeChecks;
  /** Checks of what it does by itself. */
  readonly accesses: AccessChecks;
  readonly #store: DebugStore;
  readonly #checks: MappingChecks;

  /** Made by {@link DmaDebug}. */
  constructor(facility: DebugStore, live: Live) {
    this.device = live.device;
    this.live = live;
    this.#store = facility;
    this.#checks = new MappingChecks(facility, live.device);
    this.twoStep = new RangeChecks(facility, live, this.#checks);
    this.accesses = new AccessChecks(facility, live);
  }

  path(path: Path): Path {
    return new WatchedPath(path, this);
  }

  /** Linux's debugging knows nothing of ranges. */
  range(granules: Granules, page: IovaPage, pages: number, inside: number, length: number): IovaRange | undefined {
    if (this.device.linuxCompatible) return undefined;
    return new WatchedRange(granules, page, pages, inside, length, this);
  }

  // One shot.

  /** `length` bytes at `phys` are mapped at `address`. */
  mapped(phys: number, length: number, { direction, attributes }: Terms, address: number): void {
    if (this.#store.disabled) return;
    const bits = attributeBits(attributes);
    const site = this.#begin();
    this.#checks.memory(phys, length, bits, site);
    const unchecked = this.#store.mapErrors || this.device.linuxCompatible;
    this.#add(
      { kind: "phy", phys, length, direction, attributes: bits, address },
      site,
      unchecked ? "unchecked" : "checked",
    );
  }

  /** A map or a link threw `error`. */
  refused(error: unknown, phys: number, length: number): void {
    if (!(error instanceof DmaError && error.code === "ERR_DMA_PRIVATE") || this.device.linuxCompatible) return;
    reportPrivate(this.#store, this.device, phys, length, "refused to map", this.#begin());
  }

  /** `length` bytes at `address` are going to be unmapped. */
  unmapping(address: number, length: number, { direction, attributes }: Terms): void {
    this.#freed({ kind: "phy", address, length, direction, attributes: attributeBits(attributes), entries: 0 });
  }

  /** An unmap with `shared` behind an IOMMU: it does nothing, and the mapping stays. */
  unmappedAsShared(address: number, length: number, { direction, attributes }: Terms): void {
    if (this.#store.disabled || this.device.linuxCompatible) return;
    const asked = {
      kind: "phy",
      address,
      length,
      direction,
      attributes: attributeBits(attributes),
      entries: 0,
    } as const;
    const mapping = bestFit(this.live.mappings.startingAt(address), asked, this.device);
    if (mapping) this.#checks.unmap(mapping, asked, this.#begin());
  }

  /** [address, + length) changes hands. */
  syncing(to: "cpu" | "device", address: number, length: number, direction: Direction): void {
    this.#synced(to, { kind: "phy", address, length, direction, attributes: 0, entries: 0 }, this.#begin());
  }

  /** The caller asked whether mapping `address` had failed. */
  errorChecked(address: number): void {
    for (const mapping of this.live.mappings.startingAt(address))
      if (mapping.error === "unchecked") {
        mapping.error = "checked";
        return;
      }
  }

  // Scatterlists.

  /**
   * A scatterlist was mapped to `segments`: each becomes a mapping of its own, and the memory behind the list is looked
   * over.
   */
  listMapped({ list, segments, direction, attributes }: MappedList): void {
    if (this.#store.disabled) return;
    const bits = attributeBits(attributes);
    const site = this.#begin();
    for (const { phys, length } of list) this.#checks.memory(phys, length, bits, site);
    const { linuxCompatible } = this.device;
    for (let i = 0; i < (linuxCompatible ? segments.length : list.length); i++) {
      const segment = segments[i];
      this.#checks.segment(list[i]!.length, segment?.address ?? 0, segment?.length ?? 0, site);
    }
    for (const [i, { address, length, bus }] of segments.entries()) {
      if (bus) {
        if (!linuxCompatible && this.#store.take(this.device.name)) this.live.grants.add({ address, length, site });
      } else {
        const sizes = { entries: list.length, segments: segments.length };
        const one = {
          kind: "scatter-gather",
          phys: list[i]!.phys,
          address,
          length,
          direction,
          attributes: bits,
        } as const;
        this.#add({ ...one, ...sizes }, site, "none");
      }
    }
  }

  /** A scatterlist is about to be unmapped: each segment is compared with what was mapped, and is gone then. */
  listUnmapping({ list, segments, direction, attributes }: MappedList): void {
    const bits = attributeBits(attributes);
    this.#eachSegment(list.length, segments, (address, length, entries) =>
      this.#freed({ kind: "scatter-gather", address, length, direction, attributes: bits, entries }),
    );
    for (const { address, bus } of segments)
      if (bus) {
        const grant = this.live.grants.startingAt(address)[0];
        if (grant && this.live.grants.delete(grant)) this.#store.give();
      }
  }

  /** The segments of a scatterlist change hands, to `to`. */
  listSyncing(to: "cpu" | "device", { list, segments, direction }: MappedList): void {
    const site = this.#begin();
    this.#eachSegment(list.length, segments, (address, length, entries) =>
      this.#synced(to, { kind: "scatter-gather", address, length, direction, attributes: 0, entries }, site),
    );
  }

  // Memory of its own.

  allocated(
    kind: AllocationKind,
    address: number,
    length: number,
    phys: number,
    { direction, attributes }: Terms,
  ): void {
    if (this.#store.disabled) return;
    const sizes = { entries: kind === "scatter-gather" ? 1 : 0, segments: 1 };
    const one = { kind, phys, address, length, direction, attributes: attributeBits(attributes) };
    this.#add({ ...one, ...sizes }, this.#begin(), "none");
  }

  /** `phys` is where the caller believes the memory to lie. */
  freeing(kind: AllocationKind, address: number, length: number, phys: number, { direction, attributes }: Terms): void {
    const entries = kind === "scatter-gather" ? 1 : 0;
    this.#freed({ kind, address, length, direction, attributes: attributeBits(attributes), entries, phys });
  }

  // The driver and the device.

  /** The driver lets go of the device: nothing may be mapped any more. */
  unbound(): void {
    const site = this.#begin();
    this.live.driver = undefined;
    reportLive(this.#store, this.live, site);
  }

  #begin(): CallSite | undefined {
    this.#store.tick();
    return this.#store.site();
  }

  #add(
    one: Pick<LiveMapping, "kind" | "phys" | "address" | "length" | "direction" | "attributes"> &
      Partial<Pick<LiveMapping, "entries" | "segments">>,
    site: CallSite | undefined,
    error: LiveMapping["error"],
  ): void {
    const facility = this.#store;
    const { kind, phys, address, length, direction, attributes, entries = 0, segments = 1 } = one;
    const mapping: LiveMapping = {
      device: this.device,
      kind,
      phys,
      address,
      length,
      direction,
      attributes,
      entries,
      segments,
      error,
      site,
      call: facility.calls,
      order: facility.nextOrder(),
      timeMs: facility.nowMs,
    };
    if (!facility.take(this.device.name)) return;
    this.#checks.overlap(mapping);
    this.live.mappings.add(mapping);
    if ((attributes & ATTRIBUTE_BITS.mmio) === 0) facility.activeLines.add(mapping);
  }

  #freed(asked: Asked): void {
    const facility = this.#store;
    if (facility.disabled) return;
    const site = this.#begin();
    const isAddress = Number.isSafeInteger(asked.address) && asked.address >= 0;
    const mapping = isAddress && bestFit(this.live.mappings.startingAt(asked.address), asked, this.device);
    if (!mapping) {
      reportUnknownFree(facility, this.live, asked, site);
      return;
    }
    this.#checks.unmap(mapping, asked, site);
    this.live.mappings.delete(mapping);
    if ((mapping.attributes & ATTRIBUTE_BITS.mmio) === 0) facility.activeLines.delete(mapping);
    facility.give();
    const { kind, address, length } = mapping;
    this.live.history.add({
      kind,
      address,
      length,
      mappedAt: mapping.site,
      unmappedAt: site,
      order: facility.nextOrder(),
    });
  }

  #synced(to: "cpu" | "device", asked: Asked, site: CallSite | undefined): void {
    const { device } = this;
    const { address, length } = asked;
    if (this.#store.disabled) return;
    const containing = this.live.mappings.containing(address, length);
    const mapping = bestFit(device.linuxCompatible ? this.#nearest(containing, address) : containing, asked, device);
    if (mapping) {
      this.#checks.sync(mapping, asked, to, site);
      return;
    }
    if (!device.linuxCompatible && this.live.ranges.containing(address, length).length > 0) return;
    reportUnknownSync(this.#store, this.live, asked, to, site);
  }

  /** Linux looks bucket by bucket downwards, no further than the longest segment of the device. */
  #nearest(found: readonly LiveMapping[], address: number): LiveMapping[] {
    const block = (each: LiveMapping): number => Math.floor(each.address / 8192);
    const own = Math.floor(address / 8192);
    const near = found.filter((each) => (own - block(each)) * 8192 <= this.device.maxSegmentSize);
    const last = Math.max(...near.map(block));
    return near.filter((each) => block(each) === last);
  }

  /** Segments of a list as its caller names it; a wrong count of entries is asked about once, or as Linux at each segment. */
  #eachSegment(
    entries: number,
    segments: MappedList["segments"],
    visit: (address: number, length: number, entries: number) => void,
  ): void {
    if (this.#store.disabled || segments.length === 0) return;
    const first = this.live.mappings.startingAt(segments[0]!.address).find(({ kind }) => kind === "scatter-gather");
    const { linuxCompatible } = this.device;
    const count = linuxCompatible ? Math.min(entries, segments.length, first?.segments ?? 1) : segments.length;
    let asked = entries;
    for (let i = 0; i < count; i++) {
      const { address, length, bus } = segments[i]!;
      if (bus) continue;
      visit(address, length, asked);
      if (!linuxCompatible && first !== undefined && entries !== first.entries) asked = 0;
    }
  }
}
