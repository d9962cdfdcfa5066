/** Reservations that are too large for the cache of address ranges. */
import { PAGE_SIZE } from "../../base/index.ts";
import { APART, COHERENT, TRANSLATED } from "../lifetimes/table.ts";
import type { Evidence } from "./finding.ts";
import type { Rule } from "./rule.ts";
import { count, share, size } from "./words.ts";

/** Pages of the largest ranges that Linux caches per CPU: 128 KiB. */
const CACHED_PAGES = 32;
const LEAST = 16;

interface Seen {
  all: number;
  over: number;
  largest: number;
  first: Evidence | undefined;
}

export const overCacheSize: Rule = {
  name: "over-cache-size",
  severity: "advice",
  summary: "reservations over 128 KiB miss the per-CPU cache of address ranges",
  advice:
    "Keep requests at 128 KiB (max_sectors_kb=128 for a disk), or keep large ranges mapped: a larger reservation searches a tree under a lock that all processors share.",
  watch: ({ table, eachExtent, deviceName, begun, report }) => {
    const seen = new Map<number, Seen>();
    const reserved = (row: number, known: Seen, pages: number): void => {
      known.all++;
      if (pages <= CACHED_PAGES) return;
      known.over++;
      known.largest = Math.max(known.largest, pages * PAGE_SIZE);
      known.first ??= begun(row);
    };
    return {
      opened(row) {
        if (table.reached[row] !== TRANSLATED || table.kind[row] === COHERENT) return;
        const device = table.device[row]!;
        let known = seen.get(device);
        if (!known) {
          known = { all: 0, over: 0, largest: 0, first: undefined };
          seen.set(device, known);
        }
        if ((table.flags[row]! & APART) === 0) reserved(row, known, table.pages[row]!);
        else eachExtent(row, (_page, pages) => reserved(row, known, pages));
      },
      finish() {
        for (const [device, { all, over, largest, first }] of seen)
          if (over >= LEAST)
            report({
              device,
              timeNs: first!.timeNs,
              message: `${deviceName(device)}: ${count(over)} of ${count(all)} reservations (${share(over / all)}) are larger than 128 KiB, up to ${size(largest)}.`,
              evidence: [first!],
            });
      },
    };
  },
};
