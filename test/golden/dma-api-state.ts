/**
 * The state that a file of the running kernel tells after each call: events, pool, page table, translations; and what a
 * driver may ask of a device. Everything that the file says is compared with the rebuilt machine.
 */
import type { Differences, Line } from "./judge.ts";
import { ALL_ONES, hex, type KernelEvent } from "./kernel-events.ts";
import type { KernelMachine } from "./kernel-machine.ts";
import { number } from "./words.ts";

const DOMAIN_TYPES: Readonly<Record<string, number>> = { strict: 3, lazy: 11, identity: 4 };

export class StateJudge {
  readonly #machine: KernelMachine;
  readonly #differences: Differences;
  /** A kernel with DMA debugging needs syncs and unmaps of everything. */
  readonly #debugging: boolean;
  /** Slots that other devices of that machine held. */
  #others = 0;

  constructor(machine: KernelMachine, differences: Differences, debugging: boolean) {
    this.#machine = machine;
    this.#differences = differences;
    this.#debugging = debugging;
  }

  /** What a driver may ask of its device. */
  query(line: Line, dev: number): void {
    const { pool } = this.#machine;
    const found = this.#machine.device(dev);
    const { dma } = found;
    const { device } = dma;
    const limit = (value: number): string => (Number.isFinite(value) ? hex(value) : ALL_ONES);
    const answers: Record<string, unknown> = {
      useIommu: dma.domain !== undefined,
      mask: hex(device.mask || 2 ** 32 - 1), // nobody asked for a mask of 0
      coherentMask: hex(device.coherentMask),
      requiredMask: hex(dma.requiredMask),
      maxMappingSize: limit(dma.maxMappingSize),
      optMappingSize: limit(dma.optMappingSize),
      mergeBoundary: hex(dma.mergeBoundary),
      addressingLimited: dma.addressingLimited,
      needUnmap: dma.needsUnmap,
      needSync: dma.needsSync,
      minAlignMask: hex(device.minAlignMask),
      maxSegSize: hex(device.maxSegmentSize),
      segBoundaryMask: hex(device.segmentBoundaryMask),
      untrusted: device.untrusted,
      coherent: device.coherent,
      ...(pool && { poolActive: true }), // one file has a pool and does not describe it
      domainType: dma.domain ? DOMAIN_TYPES[dma.domain.mode] : found.isIdentity ? DOMAIN_TYPES["identity"] : -1,
    };
    const debugging = (line["needSync"] as boolean) && this.#debugging;
    for (const [name, value] of Object.entries(answers)) {
      if (debugging && (name === "needSync" || name === "needUnmap")) continue; // a kernel with DMA debugging needs all
      this.#differences.same(name, line[name], value);
    }
  }

  /** The next slot of the pool, and how many are used: told by the file, because other devices take slots too. */
  poolIndex(line: Line): void {
    const { pool } = this.#machine;
    if (!pool || line["used"] === undefined) return;
    pool.nextIndex = number(line["index"]);
    this.#others = number(line["used"]) - pool.used;
  }

  /** The whole pool, slot by slot. */
  pool(line: Line): void {
    const { pool } = this.#machine;
    if (!pool || line["used"] === undefined) return;
    this.#differences.same("used", line["used"], pool.used + this.#others);
    if (this.#others === 0) this.#differences.same("index", line["index"], pool.nextIndex);
    pool.nextIndex = number(line["index"]);
    const found = (line["slots"] as unknown[]).map((_, i) => {
      const { freeRun, padSlots, allocSize, used } = pool.slotState(i);
      return [freeRun, padSlots, allocSize, used];
    });
    this.#differences.same("slots", line["slots"], found);
  }

  /** What any line may say of the state after it. */
  after(line: Line, dev: number): void {
    const { events, pool } = this.#machine;
    const seen = events.take();
    const op = line["op"];
    if (op === "domain" || op === "device" || op === "set") return;
    if (line["events"] !== undefined || seen.length > 0)
      this.#differences.same("events", (line["events"] ?? []) as KernelEvent[], seen);
    if (pool && line["poolUsed"] !== undefined)
      this.#differences.same("poolUsed", line["poolUsed"], pool.used + this.#others);
    if (pool && line["poolNext"] !== undefined) this.#differences.same("poolNext", line["poolNext"], pool.nextIndex);
    if (line["skipSync"] !== undefined && !this.#debugging)
      this.#differences.same("skipSync", line["skipSync"], this.#machine.device(dev).dma.device.skipSync);
    if (this.#machine.hasTables(dev)) this.#tables(line, dev);
    for (const [iova, phys, bytes] of (line["translates"] ?? []) as [string, string, string][])
      this.#translates(dev, number(iova), number(phys), number(bytes));
  }

  #tables(line: Line, dev: number): void {
    const { changed, tables, leaves } = this.#machine.changes(dev);
    if (line["tables"] !== undefined) this.#differences.same("tables", line["tables"], tables);
    if (line["leaves"] !== undefined) this.#differences.same("leaves", line["leaves"], leaves);
    const sorted = (list: unknown): string[] => ((list ?? []) as unknown[]).map((item) => JSON.stringify(item)).sort();
    this.#differences.same("entriesChanged", sorted(line["entriesChanged"]), sorted(changed));
  }

  #translates(dev: number, iova: number, phys: number, bytes: number): void {
    for (let at = 0; at < bytes; at += 4096) {
      const found = this.#machine.reach(dev, iova + at) ?? 0;
      if (found === (phys === 0 ? 0 : phys + at)) continue;
      this.#differences.add(`${hex(iova + at)} leads to ${hex(found)}, not to ${hex(phys + at)}`);
      return;
    }
  }
}
