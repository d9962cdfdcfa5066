/** Memory that stays mapped though its kind is always unmapped, or of which there is ever more. */
import { PAGE_SIZE } from "../../base/index.ts";
import { COHERENT, DIRECT, KINDS, NO_DEVICE, REPORTED } from "../lifetimes/table.ts";
import type { Watcher } from "../lifetimes/watcher.ts";
import type { Rule, RuleContext } from "./rule.ts";
import { address, count, noun, plural, size, time } from "./words.ts";

/** Mappings of one device and kind that make a trend. */
const LEAST_GROWTH = 32;
/** Parts of the recording in each of which a leak that grows must have grown. */
const PARTS = 4;

class Leak implements Watcher {
  readonly #context: RuleContext;
  /** How many ended, by device and kind. */
  readonly #ended = new Map<number, number>();
  #lookups = 0;

  constructor(context: RuleContext) {
    this.#context = context;
  }

  closed(row: number): void {
    const key = this.#groupOf(row);
    this.#ended.set(key, (this.#ended.get(key) ?? 0) + 1);
  }

  #groupOf(row: number): number {
    const { table } = this.#context;
    return table.device[row]! * KINDS.length + table.kind[row]!;
  }

  abandoned(row: number): void {
    const { table, deviceName, begun, current, report } = this.#context;
    report({
      device: table.device[row]!,
      iova: table.iova[row]!,
      length: table.reserved[row]!,
      timeNs: table.startNs[row]!,
      message: `The two-step range of ${size(table.reserved[row]!)} at ${address(table.iova[row]!)} of ${deviceName(table.device[row]!)} was never destroyed: its state was used for another reservation, so nobody can give it back any more.`,
      evidence: [begun(row, "reserved"), current("its state is reserved again")],
    });
  }

  finish(): void {
    const { table } = this.#context;
    if (this.#context.isCut()) return;
    for (let row = 0; row < table.used; row++) {
      if (!table.isLive(row) || this.#context.isDoubtful(table.startNs[row]!)) continue;
      const overdue = this.#context.overdue(row);
      if (!overdue || this.#context.suspicionOf(row)) continue;
      const age = this.#context.lastNs() - table.startNs[row]!;
      const device = table.device[row]!;
      this.#context.report({
        ...(overdue.confidence === "possible" && { severity: "warning" }),
        confidence: overdue.confidence,
        device,
        iova: table.iova[row]!,
        length: table.reserved[row]!,
        timeNs: table.startNs[row]!,
        message: `The ${noun(table.kind[row]!)} of ${size(table.reserved[row]!)} at ${address(table.iova[row]!)} of ${this.#context.deviceName(device)} is still live ${time(age)} later, when the recording ends; ${overdue.why}.`,
        evidence: [this.#context.begun(row)],
      });
    }
    this.#growth();
    this.#unattributed();
  }

  /** Memory may be kept on purpose: where hardly any of a kind ends, a leak shows only as growth that never stops. */
  #growth(): void {
    const { table, deviceName, begun, report } = this.#context;
    const [firstNs, lastNs] = [this.#context.firstNs(), this.#context.lastNs()];
    const groups = new Map<number, number[]>();
    for (let row = 0; row < table.used; row++) {
      if (!table.isLive(row) || table.startNs[row]! < 0 || (table.flags[row]! & REPORTED) !== 0) continue;
      if (table.reached[row] === DIRECT && table.kind[row] !== COHERENT) continue;
      const rows = groups.get(this.#groupOf(row)) ?? [];
      groups.set(this.#groupOf(row), rows);
      rows.push(row);
    }
    for (const [group, rows] of groups) {
      const ended = this.#ended.get(group) ?? 0;
      if (rows.length < LEAST_GROWTH || ended > rows.length / 8) continue;
      const parts = new Array<number>(PARTS).fill(0);
      const span = (lastNs - firstNs + 1) / PARTS;
      for (const row of rows) parts[Math.floor((table.startNs[row]! - firstNs) / span)]!++;
      if (Math.min(...parts) < LEAST_GROWTH / 8) continue;
      const bytes = rows.reduce((sum, row) => sum + table.length[row]!, 0);
      const device = table.device[rows[0]!]!;
      const last = rows.reduce((a, b) => (table.id[a]! > table.id[b]! ? a : b));
      report({
        severity: "warning",
        confidence: "likely",
        device,
        length: bytes,
        timeNs: lastNs,
        message: `What ${deviceName(device)} has mapped (${KINDS[table.kind[last]!]}) grows all the time: ${plural(rows.length, "mapping")} (${size(bytes)}) in ${time(lastNs - firstNs)}, ${count(ended)} unmapped; ${parts.map(count).join(", ")} begun in the quarters of the recording.`,
        evidence: [begun(last, "the last one")],
      });
    }
  }

  /**
   * How many pieces beside `run` its task mapped in the same row, upwards, and were unmapped since; 0: too few. The kernel itself
   * gives addresses out downwards, and unmaps what one request mapped at once: such a row is mapped by one who chooses addresses.
   */
  #gone(run: readonly number[]): number {
    const { waiting } = this.#context.iommu;
    if (this.#lookups >= MOST_LOOKUPS) return 0;
    let all = 0;
    for (const [edge, step] of [
      [run[0]!, -1],
      [run.at(-1)!, 1],
    ] as const) {
      let [page, pages, atNs] = [waiting.page[edge]!, waiting.pages[edge]!, waiting.startNs[edge]!];
      let found = 0;
      while (found < MOST_NEIGHBOURS) {
        const wanted = step > 0 ? page + pages : page - 1;
        this.#lookups++;
        const question = {
          device: undefined,
          page: wanted,
          address: wanted * PAGE_SIZE,
          timeNs: undefined,
          toleranceNs: 0,
        };
        const { ended } = this.#context.addresses.survey(question);
        if (ended?.device !== NO_DEVICE || ended.began?.pid !== waiting.pid[edge]) break;
        const first = ended.iova / PAGE_SIZE;
        // Later the higher: in one row.
        if ((ended.startNs - atNs) * step <= 0) break;
        if (step > 0 ? first !== wanted : first + ended.length / PAGE_SIZE !== page) break;
        [page, pages, atNs] = [first, ended.length / PAGE_SIZE, ended.startNs];
        found++;
      }
      if (found < LEAST_NEIGHBOURS) return 0;
      all += found;
    }
    return all;
  }

  /** What only `iommu:map` events show: pieces that were mapped together and stay are one mapping. */
  #unattributed(): void {
    const { iommu, namesAllocations, evidence, report } = this.#context;
    const lastNs = this.#context.lastNs();
    const { waiting, ended, longestNs, recent } = iommu;
    if (this.#context.hasLost() || ended < 8) return;
    const runs = waiting.runs();
    // Two domains share addresses: no telling whose is left.
    if (iommu.sharesAddresses || runs.some((run) => run.some((piece) => waiting.overLive[piece] === 1))) return;
    // Those that ended last all began after it: it is not the load that just began.
    const before = Math.min(...recent.map(({ startNs }) => startNs));
    for (const run of runs) {
      const first = run[0]!;
      const startNs = waiting.startNs[first]!;
      if (lastNs - startNs <= 2 * longestNs) continue;
      // What the trace cannot name may be coherent memory, which is meant to stay: unless it is one of a row of pages that went.
      const neighbours = namesAllocations() ? 0 : this.#gone(run);
      if (namesAllocations() ? startNs >= before : neighbours === 0) continue;
      const iova = waiting.page[first]! * PAGE_SIZE;
      const length = run.reduce((sum, piece) => sum + waiting.pages[piece]!, 0) * PAGE_SIZE;
      const place = {
        timeNs: startNs,
        cpu: waiting.cpu[first]!,
        pid: waiting.pid[first]!,
        task: waiting.task[first]!,
        type: waiting.type[first]!,
        site: waiting.site[first]!,
      };
      report({
        confidence: "likely",
        device: NO_DEVICE,
        iova,
        length,
        timeNs: startNs,
        message: `${size(length)} at ${address(iova)} are still mapped ${time(lastNs - startNs)} later, when the recording ends; ${neighbours > 0 ? `the ${count(neighbours)} pieces that the same task mapped right before and behind it were unmapped, and ` : ""}the ${count(ended)} others that no event names a device for lived ${time(longestNs)} at most.`,
        evidence: [evidence("mapped", place, iova, length)],
      });
    }
  }
}

/** Pieces on either side of one that stays which must have gone; a row of one task, each mapped where the last one ended. */
const LEAST_NEIGHBOURS = 2;
const MOST_NEIGHBOURS = 8;
/** Runs whose neighbours are looked up: a search through all that has ended each. */
const MOST_LOOKUPS = 64;

export const leak: Rule = {
  name: "leak",
  severity: "error",
  summary: "memory stays mapped though its kind is always unmapped, or ever more of it is mapped",
  advice:
    "Find the path that ends without its unmap (an error or time-out path, most often) from the task and time of the map; the device can still reach this memory.",
  watch: (context) => new Leak(context),
};
