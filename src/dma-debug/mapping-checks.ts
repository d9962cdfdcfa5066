/**
 * The checks of one-shot mappings, scatterlists and allocations, with what each of them says.
 *
 * Pure questions about two sides, what was mapped and what is asked; the bookkeeping around them is `device-debug.ts`.
 * Specified by: behaviour of Linux 7.2 DMA debugging, errors 1 to 22.
 */
import { hex, type MisuseCode, PhysAddr } from "../base/index.ts";
import { ATTRIBUTE_BITS, type DmaDevice, hiddenFrom } from "../dma/index.ts";
import { MOST_OVERLAPS } from "./active-cache-lines.ts";
import type { CallSite } from "./call-site.ts";
import type { DebugStore } from "./debug-store.ts";

import type { Asked, LiveMapping } from "./records.ts";
import { reportPrivate } from "./unmatched.ts";

/** Attributes that both sides must agree on. */
const COMPARED =
  ATTRIBUTE_BITS.noKernelMapping |
  ATTRIBUTE_BITS.forceContiguous |
  ATTRIBUTE_BITS.mmio |
  ATTRIBUTE_BITS.requireCoherent |
  ATTRIBUTE_BITS.privileged |
  ATTRIBUTE_BITS.shared;

/** The one that fits best; undefined if none does. Linux gives up if several fit and none fits exactly. */
export function bestFit(candidates: readonly LiveMapping[], asked: Asked, device: DmaDevice): LiveMapping | undefined {
  let best: LiveMapping | undefined;
  let most = -1;
  for (const each of candidates) {
    const fits =
      Number(each.length === asked.length) +
      Number(each.kind === asked.kind) +
      Number(each.direction === asked.direction) +
      Number(each.entries === asked.entries);
    if (fits === 4) return each;
    if (fits > most) {
      best = each;
      most = fits;
    }
  }
  return device.linuxCompatible && (candidates.length > 1 || most === 0) ? undefined : best;
}

export class MappingChecks {
  readonly #store: DebugStore;
  readonly #device: DmaDevice;

  constructor(facility: DebugStore, device: DmaDevice) {
    this.#store = facility;
    this.#device = device;
  }

  /** What a mapping's memory must not be. */
  memory(phys: number, length: number, attributes: number, site: CallSite | undefined): void {
    this.#kind(phys, length, attributes, site);
    const claimed = (attributes & ATTRIBUTE_BITS.shared) !== 0 && !this.#device.linuxCompatible;
    if (claimed && hiddenFrom(this.#device, PhysAddr(phys), length))
      reportPrivate(this.#store, this.#device, phys, length, "maps as shared", site);
  }

  /** The memory of a mapping: stacks, code, RAM as a device's, nothing at all. */
  #kind(phys: number, length: number, attributes: number, site: CallSite | undefined): void {
    const facility = this.#store;
    if (!facility.knowsMemory) return;
    const bytes = `${length} bytes at ${hex(phys)}`;
    const sites = [["mapped at", site]] as const;
    const report = (code: MisuseCode, message: string, details: object = {}): void =>
      facility.report(code, this.#device.name, message, { phys, length, ...details }, sites);
    const ram = facility.ram(phys, length);
    if ((attributes & ATTRIBUTE_BITS.mmio) !== 0) {
      if (ram === "all" || ram === "some")
        report("mmio-of-ram", `maps ${bytes} as a device's memory, and that is RAM; map it without mmio`);
      return;
    }
    const stack = facility.stackAt(phys, length);
    if (stack)
      report("maps-stack", `maps ${bytes}, which is stack${named(stack.name)}; use memory that outlives the call`);
    const text = this.#device.linuxCompatible ? undefined : facility.textAt(phys, length);
    if (text) report("maps-text", `maps ${bytes}, which is code or constants${named(text.name)}; copy it first`);
    if (ram === "none" || ram === "some")
      report("maps-invalid", `maps ${bytes}, and not all of that is memory; a device's memory is mapped with mmio`);
  }

  /** A segment of a list: the input entry's length, the output's place. */
  segment(entryLength: number, address: number, length: number, site: CallSite | undefined): void {
    const { maxSegmentSize, segmentBoundaryMask, name } = this.#device;
    if (entryLength > maxSegmentSize)
      this.#store.report(
        "segment-too-long",
        name,
        `maps a list with an entry of ${entryLength} bytes; the device takes segments of ${maxSegmentSize} at most`,
        { length: entryLength, max: maxSegmentSize },
        [["mapped at", site]],
      );
    const boundary = segmentBoundaryMask + 1;
    if (length > 0 && Math.floor(address / boundary) !== Math.floor((address + length - 1) / boundary))
      this.#store.report(
        "segment-across-boundary",
        name,
        `maps a list with a segment from ${hex(address)} to ${hex(address + length - 1)}; the device takes none across ` +
          `multiples of ${hex(boundary)}`,
        { start: address, end: address + length - 1, boundary: segmentBoundaryMask },
        [["mapped at", site]],
      );
  }

  /** Other live mappings of the same cache lines that a device may write. */
  overlap(mapping: LiveMapping): void {
    const { direction, attributes, phys, length } = mapping;
    if (direction === "to-device" || (attributes & ATTRIBUTE_BITS.mmio) !== 0) return;
    const facility = this.#store;
    const { linuxCompatible, coherent, name, cacheLine: ownLine } = this.#device;
    const line = ownLine || facility.cacheLine;
    const sharing = facility.activeLines.sharing(phys, length, line);
    if (sharing.length === 0) return;
    if (!linuxCompatible && (attributes & ATTRIBUTE_BITS.skipCpuSync) === 0) {
      const known = ATTRIBUTE_BITS.ignoreCacheLines | ATTRIBUTE_BITS.requireCoherent;
      const unit = coherent ? 1 : line;
      const other = sharing.find(
        (each) =>
          ((attributes & known) === 0 || (each.attributes & known) === 0) &&
          (!coherent || (each.phys < phys + length && phys < each.phys + each.length)),
      );
      if (other)
        facility.report(
          "overlapping-cache-line",
          name,
          `maps ${length} bytes at ${hex(phys)} for writing while ${other.length} bytes at ${hex(other.phys)} are mapped ` +
            `for writing${other.device === this.#device ? "" : ` by ${other.device.name}`}: they share ` +
            `${unit === 1 ? "bytes" : `a cache line of ${unit} bytes`}`,
          { phys, length, otherPhys: other.phys, otherLength: other.length, unit },
          [
            ["other mapped at", other.site],
            ["mapped at", mapping.site],
          ],
        );
    }
    const first = Math.floor(phys / line);
    const others = sharing.filter((each) => {
      const start = Math.floor(each.phys / line);
      return linuxCompatible ? start === first : start <= first && each.phys + each.length > first * line;
    });
    if (others.length !== MOST_OVERLAPS + 1 || (linuxCompatible && facility.warnedOfOverlaps)) return;
    facility.warnedOfOverlaps = true;
    facility.report(
      "too-many-overlaps",
      name,
      `maps ${length} bytes at ${hex(phys)}: the cache line at ${hex(first * line)} is now in ${others.length + 1} live ` +
        `mappings, ${MOST_OVERLAPS} more than one and what may be overlooked`,
      { phys, length, cacheLine: first, mappings: others.length + 1 },
      [
        ["first mapped at", others[0]!.site],
        ["mapped at", mapping.site],
      ],
    );
  }

  /** What an unmap says against what was mapped. */
  unmap(mapped: LiveMapping, asked: Asked, site: CallSite | undefined): void {
    if (agree(mapped, asked)) return;
    const { address } = asked;
    const sites = [
      ["mapped at", mapped.site],
      ["unmapped at", site],
    ] as const;
    const report = (code: MisuseCode, message: string, details: object): void =>
      this.#store.report(code, this.#device.name, message, { address, length: asked.length, ...details }, sites);
    const at = `at ${hex(address)}`;
    if (mapped.length !== asked.length)
      report("different-size", `unmaps ${asked.length} bytes ${at}; ${mapped.length} bytes were mapped`, {
        mapped: mapped.length,
      });
    if (mapped.kind !== asked.kind)
      report(
        "wrong-function",
        `unmaps ${asked.length} bytes ${at} as ${asked.kind}; they were mapped as ${mapped.kind}`,
        {
          mapped: mapped.kind,
          unmapped: asked.kind,
        },
      );
    else if (asked.phys !== undefined && asked.phys !== mapped.phys)
      report(
        "different-cpu-address",
        `frees memory ${at} that lies at ${hex(mapped.phys)} as if at ${hex(asked.phys)}`,
        {
          mapped: mapped.phys,
          unmapped: asked.phys,
        },
      );
    if (asked.kind === "scatter-gather" && mapped.kind === asked.kind) this.entries(mapped, asked, "unmaps", site);
    if (mapped.direction !== asked.direction)
      report("different-direction", `unmaps ${at} as ${asked.direction} what was mapped as ${mapped.direction}`, {
        mapped: mapped.direction,
        unmapped: asked.direction,
      });
    if (mapped.error === "unchecked")
      report("map-error-unchecked", `unmaps ${asked.length} bytes ${at} and never asked whether mapping had failed`, {
        kind: mapped.kind,
      });
    const [was, is] = [mapped.attributes & COMPARED, asked.attributes & COMPARED];
    if (was !== is)
      report("different-attributes", `unmaps ${at} with attributes ${hex(is)} what was mapped with ${hex(was)}`, {
        mapped: was,
        unmapped: is,
      });
  }

  /** How many entries a list had, and how many the caller says it has. */
  entries(mapped: LiveMapping, asked: Asked, what: "unmaps" | "syncs", site: CallSite | undefined): void {
    if (asked.entries === 0 || asked.entries === mapped.entries) return;
    this.#store.report(
      "different-entry-count",
      this.#device.name,
      `${what} a list of ${asked.entries} entries that had ${mapped.entries} when it was mapped`,
      { address: asked.address, mapped: mapped.entries, asked: asked.entries, what },
      [
        ["mapped at", mapped.site],
        [`${what === "unmaps" ? "unmapped" : "synced"} at`, site],
      ],
    );
  }

  /**
   * What a sync says against what was mapped. Handing a buffer over with the direction it was mapped with is what drivers
   * must do, both ways, and never a finding.
   */
  sync(mapped: LiveMapping, asked: Asked, to: "cpu" | "device", site: CallSite | undefined): void {
    const { linuxCompatible, name } = this.#device;
    if (mapped.direction !== "bidirectional" && mapped.direction !== asked.direction) {
      const wrong =
        to === "cpu" && mapped.direction === "to-device"
          ? "sync-read-only-for-cpu"
          : to === "device" && mapped.direction === "from-device"
            ? "sync-write-only-for-device"
            : undefined;
      const codes: MisuseCode[] = [];
      if (linuxCompatible || wrong === undefined) codes.push("sync-different-direction");
      if (wrong !== undefined) codes.push(wrong);
      for (const code of codes)
        this.#store.report(
          code,
          name,
          `syncs ${asked.length} bytes at ${hex(asked.address)} for the ${to === "cpu" ? "CPU" : "device"} as ` +
            `${asked.direction}; they were mapped as ${mapped.direction}${REASONS[code] ?? ""}`,
          {
            address: asked.address,
            length: asked.length,
            mappedLength: mapped.length,
            mapped: mapped.direction,
            synced: asked.direction,
          },
          [
            ["mapped at", mapped.site],
            ["synced at", site],
          ],
        );
    }
    if (asked.kind === "scatter-gather" && mapped.kind === asked.kind)
      if (!linuxCompatible || mapped.direction !== "bidirectional") this.entries(mapped, asked, "syncs", site);
  }
}

/** Nothing about the two differs that could be a finding. */
const agree = (mapped: LiveMapping, asked: Asked): boolean =>
  mapped.length === asked.length &&
  mapped.kind === asked.kind &&
  mapped.direction === asked.direction &&
  mapped.error !== "unchecked" &&
  ((mapped.attributes ^ asked.attributes) & COMPARED) === 0 &&
  (asked.phys === undefined || asked.phys === mapped.phys) &&
  (asked.entries === 0 || asked.entries === mapped.entries);

const REASONS: Partial<Readonly<Record<MisuseCode, string>>> = {
  "sync-read-only-for-cpu": ", so the device wrote nothing there",
  "sync-write-only-for-device": ", so the device reads nothing there",
};

const named = (name: string | undefined): string => (name === undefined ? "" : ` (${name})`);
