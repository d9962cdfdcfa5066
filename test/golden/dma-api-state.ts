/**
 * The state that a file of the running kernel tells after each call: events, pool, page table, translations; and what a
 * driver may ask of a device. Everything that the file says is compared with the rebuilt machine.
 */
import type { Thing } from "./dma-api-objects.ts";
import type { Differences, Line, Tally } from "./judge.ts";
import { ALL_ONES, hex, type KernelEvent } from "./kernel-events.ts";
import type { KernelMachine } from "./kernel-machine.ts";
import { number } from "./le-words.ts";

const DOMAIN_TYPES: Readonly<Record<string, number>> = { strict: 3, lazy: 11 };

export class StateJudge {
  readonly #machine: KernelMachine;
  readonly #tally: Tally;
  readonly #differences: Differences;
  /** A kernel with DMA debugging needs syncs and unmaps of everything. */
  readonly #debugging: boolean;
  /** Slots that other devices of that machine held. */
  #others = 0;

  constructor(machine: KernelMachine, tally: Tally, differences: Differences, debugging: boolean) {
    this.#machine = machine;
    this.#tally = tally;
    this.#differences = differences;
    this.#debugging = debugging;
  }

  /** What a driver may ask of its device. */
  query(line: Line, dev: number): void {
    const { dma } = this.#machine.devices[dev]!;
    const { device } = dma;
    const limit = (value: number): string => (Number.isFinite(value) ? hex(value) : ALL_ONES);
    const found: Record<string, unknown> = {
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
    };
    if (dma.domain) found["domainType"] = DOMAIN_TYPES[dma.domain.mode];
    const debugging = (line["needSync"] as boolean) && this.#debugging;
    for (const [name, value] of Object.entries(found)) {
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
    const found = (line["slots"] as unknown[]).map((_, i) => {
      const { freeRun, padSlots, allocSize, used } = pool.slotState(i);
      return [freeRun, padSlots, allocSize, used];
    });
    this.#differences.same("slots", line["slots"], found);
  }

  /** What any line may say of the state after it. */
  after(line: Line, thing: Thing, dev: number): void {
    const { events, pool, devices } = this.#machine;
    const seen = events.take();
    const op = line["op"];
    if (op === "domain" || op === "device" || op === "set") return;
    if (line["events"] !== undefined || seen.length > 0) {
      let expected = (line["events"] ?? []) as KernelEvent[];
      const short = expected.some(([name, , length, done]) => name === "unmap" && length !== done);
      const long = number(line["size"] ?? 0) > (thing.mapping?.size ?? 0);
      if (op === "unmap" && (short || long) && !seen.some(([name]) => name === "iovaFree" || name === "queue")) {
        expected = expected.filter(([name]) => name !== "iovaFree" && name !== "queue");
        this.#tally.rule("free once");
      }
      this.#differences.same("events", expected, JSON.parse(JSON.stringify(seen)));
    }
    if (pool && line["poolUsed"] !== undefined)
      this.#differences.same("poolUsed", line["poolUsed"], pool.used + this.#others);
    if (pool && line["poolNext"] !== undefined) this.#differences.same("poolNext", line["poolNext"], pool.nextIndex);
    if (line["skipSync"] !== undefined && !this.#debugging)
      this.#differences.same("skipSync", line["skipSync"], devices[dev]!.dma.device.skipSync);
    if (devices[dev]?.domain) this.#tables(line, dev);
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
