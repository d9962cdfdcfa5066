/**
 * Checked mode: one value that looks over the mappings of any number of devices and says what was misused.
 *
 *     const debug = new DmaDebug();
 *     const dma = new Dma({ domain, debug });
 *     …
 *     for (const finding of debug.report()) console.log(String(finding));
 *     for (const row of debug.live()) console.log(row.address, row.site);
 *
 * Idea: the kernel's DMA debugging, for every call of this library, and for two-step ranges and the accesses of devices
 * too. A finding never throws and changes nothing; {@link DeviceOptions.checked} is what refuses.
 * Promises: memory is bounded; without a value of this kind nothing of it costs anything.
 * Specified by: behaviour of Linux 7.2 DMA debugging; docs/dma-debugging.md.
 */

import type { Direction } from "../base/index.ts";
import { attributesOf, type DmaAttributes, type DmaDevice, type DmaWatcher } from "../dma/index.ts";
import type { AddressSpace } from "../iommu/index.ts";
import type { DeviceAccess } from "../platform/index.ts";
import { type DebugCounters, DebugStore, type DmaDebugOptions } from "./debug-store.ts";
import { DeviceDebug } from "./device-debug.ts";
import { dumpOf } from "./dump.ts";
import type { DebugFinding } from "./finding.ts";
import { Live } from "./live.ts";
import type { MappingKind } from "./records.ts";

/** A mapping that is live now. Bytes. */
export interface LiveRow {
  /** Name of the device. */
  readonly device: string;
  /** By which call it was made. */
  readonly kind: MappingKind | "two-step";
  /** Of a range: of its first link; undefined if nothing is linked. */
  readonly phys: number | undefined;
  /** Where it begins for the device. */
  readonly address: number;
  /** Of a range: what was reserved. */
  readonly length: number;
  /** As it was mapped; undefined for a range with nothing linked. */
  readonly direction: Direction | undefined;
  /** As it was mapped; of a range, those of its first link. */
  readonly attributes: DmaAttributes;
  /** Of a range: its links. */
  readonly links?: number;
  /** Of a range: bytes that are linked. */
  readonly linkedBytes?: number;
  /** Where it was mapped or reserved; undefined if call sites are not taken. */
  readonly site: string | undefined;
  /** Calls that were checked since it was made. */
  readonly ageCalls: number;
  /** Milliseconds since; undefined without a clock. */
  readonly ageMs: number | undefined;
}

/**
 * DMA debugging: looks over every call of any number of devices, and says what was misused and by which line. Never
 * throws, and changes nothing. Given as {@link DmaOptions.debug}. Memory is bounded by its options.
 */
export class DmaDebug implements DmaWatcher {
  readonly #store: DebugStore;
  readonly #devices = new Map<DmaDevice, DeviceDebug>();
  readonly #requesters = new Map<number, DeviceDebug[]>();

  /** Looks over nothing yet: give it to {@link DmaOptions.debug}. */
  constructor(options: DmaDebugOptions = {}) {
    this.#store = new DebugStore(options, () => {
      for (const device of this.#devices.values()) device.live.clear();
    });
  }

  /** Times that `output` or `onFinding` of the options threw: what was called went on. */
  get callbackErrors(): number {
    return this.#store.callbackErrors;
  }

  /** Findings so far, oldest first, as many as are kept. */
  report(): readonly DebugFinding[] {
    return this.#store.findings;
  }

  /** What is live now, of all devices or of one, oldest first. */
  live(device?: DmaDevice): LiveRow[] {
    const { nowMs, hasClock, counters } = this.#store;
    const rows: (LiveRow & { readonly order: number })[] = [];
    for (const each of this.#devices.values()) {
      if (device !== undefined && each.device !== device) continue;
      for (const { kind, phys, address, length, direction, attributes, site, call, order, timeMs } of each.live
        .mappings)
        rows.push({
          device: each.device.name,
          kind,
          phys,
          address,
          length,
          direction,
          attributes: attributesOf(attributes),
          site: site && String(site),
          ageCalls: counters.calls - call,
          ageMs: hasClock ? nowMs - timeMs : undefined,
          order,
        });
      for (const { address, capacity, pieces, site, call, order, timeMs } of each.live.ranges)
        rows.push({
          device: each.device.name,
          kind: "two-step",
          phys: pieces[0]?.phys,
          address,
          length: capacity,
          direction: pieces[0]?.direction,
          attributes: attributesOf(pieces[0]?.attributes ?? 0),
          links: pieces.length,
          linkedBytes: pieces.reduce((sum, { length }) => sum + length, 0),
          site: site && String(site),
          ageCalls: counters.calls - call,
          ageMs: hasClock ? nowMs - timeMs : undefined,
          order,
        });
    }
    return rows.sort((a, b) => a.order - b.order).map(({ order, ...row }) => row);
  }

  /** Live mappings in the kernel's own format, which `dmalink check` reads; two-step ranges are not in it. */
  dump(): string[] {
    return dumpOf(
      [...this.#devices.values()].map(({ live }) => live),
      this.#store.cacheLine,
    );
  }

  /** How much is watched, and what came of it, as of now. */
  get counters(): DebugCounters {
    return this.#store.counters;
  }

  /** The entries ran out: nothing is checked any more. */
  get disabled(): boolean {
    return this.#store.disabled;
  }

  /** The caller asked whether mapping `address` had failed, as Linux's drivers must; see {@link DmaDebugOptions.mapErrors}. */
  errorChecked(address: number): void {
    for (const device of this.#devices.values()) device.errorChecked(address);
  }

  /** A driver takes the device: its name stands in {@link dump}. */
  driverBound(device: DmaDevice, driver: string): void {
    const found = this.#devices.get(device);
    if (found) found.live.driver = driver;
  }

  /** The driver lets go of the device: what is still mapped is a finding. */
  driverUnbound(device: DmaDevice): void {
    this.#devices.get(device)?.unbound();
  }

  /**
   * A device did this. A simulated machine is told to call it: `machine.fabric.onAccess = debug.accessed`. Accesses of
   * requesters that no device here has are not looked at.
   */
  readonly accessed = (access: DeviceAccess): void => {
    const own = this.#requesters.get(access.requester);
    if (own === undefined || this.#store.disabled) return;
    this.#store.tick();
    if (own.some(({ device }) => device.linuxCompatible)) return;
    const isMapped = ({ accesses }: DeviceDebug): boolean => accesses.checkMapped(access);
    if (own.some(isMapped) || this.#sharing(own).some(isMapped)) return;
    own.findLast(({ accesses }) => accesses.checkUnmapped(access));
  };

  /** Accesses of `requester` are those of `device`; said already for devices that have a node in the PCI tree. */
  knowAs(device: DmaDevice, requester: number): void {
    const found = this.#devices.get(device);
    if (!found) return;
    const known = this.#requesters.get(requester) ?? [];
    if (!known.includes(found)) this.#requesters.set(requester, [...known, found]);
  }

  /** The checks of one device; undefined if it is not under this value. */
  of(device: DmaDevice): DeviceDebug | undefined {
    return this.#devices.get(device);
  }

  /** Other devices of the same address spaces: what one of them maps, all reach. */
  #sharing(own: readonly DeviceDebug[]): DeviceDebug[] {
    const domains = new Set(own.map(({ live }) => live.domain).filter((domain) => domain !== undefined));
    if (domains.size === 0) return [];
    return [...this.#devices.values()].filter(
      (each) => each.live.domain && domains.has(each.live.domain) && !own.includes(each),
    );
  }

  /** For {@link Dma}: `device` is looked over from now on. */
  watch(device: DmaDevice, domain: AddressSpace | undefined): DeviceDebug {
    const watched = new DeviceDebug(this.#store, new Live(device, domain, this.#store.history));
    this.#devices.set(device, watched);
    if (device.node) this.knowAs(device, device.node.requester);
    return watched;
  }
}
