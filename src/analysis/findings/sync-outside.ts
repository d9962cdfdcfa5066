/** A sync of memory that is not mapped then, or not as far. */
import { PAGE_SIZE } from "../../base/index.ts";
import { DIRECT, FROM_BEFORE, NO_DEVICE } from "../lifetimes/table.ts";
import type { Watcher } from "../lifetimes/watcher.ts";
import type { Evidence } from "./finding.ts";
import type { Rule, RuleContext } from "./rule.ts";
import { address, noun, size, time } from "./words.ts";

/** Syncs of what was never seen that are remembered, in case that it is mapped only later. */
const MOST_EARLY = 4096;
/** Syncs of what is not live that are looked up among what has ended: a search through all of that each. */
const MOST_LOOKUPS = 256;

/** A sync of what no mapping holds, so far. */
interface Early {
  readonly device: number;
  readonly iova: number;
  readonly length: number;
  readonly timeNs: number;
  readonly event: Evidence;
}

class SyncOutside implements Watcher {
  readonly #scene: RuleContext;
  /** By page. */
  readonly #early = new Map<number, Early>();
  #lookups = 0;

  constructor(scene: RuleContext) {
    this.#scene = scene;
  }

  syncMissed(...[device, iova, length, miss]: Parameters<NonNullable<Watcher["syncMissed"]>>): void {
    const { table, deviceName, begun, current, report, isDoubtful, addresses, evidence } = this.#scene;
    const who = deviceName(device);
    const sync = current("synced", iova, length);
    if (miss.why === "beyond") {
      const { row } = miss;
      if ((table.flags[row]! & FROM_BEFORE) === 0 && isDoubtful(table.startNs[row]!)) return;
      const beyond = iova + length - table.iova[row]! - table.reserved[row]!;
      const how = beyond > 0 ? `goes ${size(beyond)} beyond` : "is not all of";
      report({
        device,
        iova,
        length,
        message: `${who}: the sync of ${size(length)} at ${address(iova)} ${how} the ${noun(table.kind[row]!)} of ${size(table.reserved[row]!)} at ${address(table.iova[row]!)}.`,
        evidence: [begun(row), sync],
      });
      return;
    }
    if (this.#lookups < MOST_LOOKUPS) {
      this.#lookups++;
      const { timeNs } = this.#scene.now;
      const page = Math.floor(iova / PAGE_SIZE);
      const { live, ended } = addresses.survey({ device, page, address: iova, timeNs, toleranceNs: 0 });
      const holds = ({ iova: from, length: bytes }: { iova: number; length: number }): boolean =>
        from <= iova && iova < from + bytes;
      if (live.some((holder) => holder.device !== NO_DEVICE && holds(holder))) return;
      if (ended?.device === device && holds(ended) && !isDoubtful(ended.endNs)) {
        report({
          device,
          iova,
          length,
          message: `${who}: ${size(length)} at ${address(iova)} are synced ${time(timeNs - ended.endNs)} after the ${noun(ended.kind)} of ${size(ended.length)} at ${address(ended.iova)} ended.`,
          evidence: [
            ...(ended.began ? [evidence("mapped", ended.began, ended.iova, ended.length)] : []),
            ...(ended.ended ? [evidence("unmapped", ended.ended, ended.iova, ended.length)] : []),
            sync,
          ],
        });
        return;
      }
    }
    if (miss.why === "not-at-start") {
      report({
        confidence: "likely",
        device,
        iova,
        length,
        message: `${who}: ${size(length)} at ${address(iova)} are synced, and are not mapped: neither in this recording nor in the start state given.`,
        evidence: [sync],
      });
      return;
    }
    if (this.#early.size < MOST_EARLY)
      this.#early.set(Math.floor(iova / PAGE_SIZE), {
        device,
        iova,
        length,
        timeNs: this.#scene.now.timeNs,
        event: sync,
      });
  }

  /** What is mapped where something was synced, and nothing was unmapped in between, was not mapped then. */
  opened(row: number): void {
    if (this.#early.size === 0) return;
    const { table, deviceName, begun, report, isDoubtful } = this.#scene;
    // Memory may be mapped several times at once where addresses are the memory's.
    if (table.reached[row] === DIRECT) return;
    const from = table.iova[row]!;
    const end = from + table.reserved[row]!;
    for (const [page, early] of this.#near(from, end)) {
      if (early.device !== table.device[row] || early.iova < from || early.iova + early.length > end) continue;
      this.#early.delete(page);
      if (isDoubtful(early.timeNs)) continue;
      report({
        confidence: "likely",
        device: early.device,
        iova: early.iova,
        length: early.length,
        timeNs: early.timeNs,
        message: `${deviceName(early.device)}: ${size(early.length)} at ${address(early.iova)} are synced ${time(table.startNs[row]! - early.timeNs)} before they are mapped.`,
        evidence: [early.event, begun(row, "mapped only then")],
      });
    }
  }

  /** It was mapped before the recording: the sync was right. */
  unmatched(...[{ iova, length }]: Parameters<NonNullable<Watcher["unmatched"]>>): void {
    this.#forget(iova, Math.max(1, length));
  }

  iommuUnmapped(iova: number, asked: number): void {
    this.#forget(iova, Math.max(1, asked));
  }

  #forget(iova: number, length: number): void {
    if (this.#early.size === 0) return;
    for (const [page] of this.#near(iova, iova + length)) this.#early.delete(page);
  }

  #near(from: number, end: number): [number, Early][] {
    const [first, last] = [Math.floor(from / PAGE_SIZE), Math.ceil(end / PAGE_SIZE)];
    if (last - first > this.#early.size) return [...this.#early].filter(([page]) => page >= first && page < last);
    const found: [number, Early][] = [];
    for (let page = first; page < last; page++) {
      const early = this.#early.get(page);
      if (early) found.push([page, early]);
    }
    return found;
  }
}

export const syncOutside: Rule = {
  name: "sync-outside",
  severity: "error",
  summary: "a sync is of memory that is not mapped then, or goes beyond what is mapped",
  advice:
    "Sync between the map and the unmap, and no more than was mapped: with bounce buffers or caches that the device does not see, anything else loses data or writes over memory that is not the buffer's.",
  watch: (scene) => new SyncOutside(scene),
};
