/** Neighbours in memory that are mapped one by one. */
import { PAGE_SIZE } from "../../base/index.ts";
import { DIRECT, ONE_SHOT } from "../lifetimes/table.ts";
import type { Evidence } from "./finding.ts";
import type { Rule } from "./rule.ts";
import { count, share } from "./words.ts";

const LEAST = 64;
const LEAST_SHARE = 0.25;
/** Joined, they stay within what the allocator's cache holds: larger ones cost more than they save (over-cache-size). */
const MOST_JOINED = 128 * 1024;
/** Pieces further apart are of different requests. */
const APART_NS = 10_000;

interface Seen {
  segments: number;
  neighbours: number;
  first: Evidence | undefined;
}

export const mergeContiguous: Rule = {
  name: "merge-contiguous",
  severity: "advice",
  summary: "pieces of memory that lie one behind the other are mapped one by one",
  advice:
    "Join neighbours before mapping them (one physical vector, a larger folio): each saved piece is one map call and, one-shot, one search for address space and one invalidation.",
  watch: ({ table, deviceName, now, begun, current, lastNs, report }) => {
    const seen = new Map<number, Seen>();
    /** By CPU: where the last piece ended, and the neighbours before it began, and whose they were. */
    const ends: { device: number; direction: number; start: number; end: number; pid: number; timeNs: number }[] = [];
    const piece = (
      device: number,
      direction: number,
      phys: number,
      length: number,
      row: number,
      link: boolean,
    ): void => {
      let known = seen.get(device);
      if (!known) {
        known = { segments: 0, neighbours: 0, first: undefined };
        seen.set(device, known);
      }
      known.segments++;
      let last = ends[now.cpu];
      if (!last) {
        last = { device: -1, direction: -1, start: -1, end: -1, pid: -1, timeNs: 0 };
        ends[now.cpu] = last;
      }
      const whole = phys % PAGE_SIZE === 0 && length % PAGE_SIZE === 0;
      if (
        whole &&
        last.end === phys &&
        phys + length - last.start <= MOST_JOINED &&
        now.timeNs - last.timeNs < APART_NS &&
        last.device === device &&
        last.direction === direction &&
        last.pid === now.pid
      ) {
        known.neighbours++;
        known.first ??= link ? current("linked", undefined, length) : begun(row);
      } else last.start = phys;
      last.device = device;
      last.direction = direction;
      last.end = phys + length;
      last.pid = now.pid;
      last.timeNs = now.timeNs;
    };
    return {
      opened(row) {
        if (table.kind[row] !== ONE_SHOT || table.reached[row] === DIRECT) return;
        piece(table.device[row]!, table.direction[row]!, table.phys[row]!, table.length[row]!, row, false);
      },
      linking: (row, _offset, length, phys) => piece(table.device[row]!, 3, phys, length, row, true),
      finish() {
        for (const [device, { segments, neighbours, first }] of seen)
          if (neighbours >= LEAST && neighbours / segments >= LEAST_SHARE)
            report({
              confidence: "likely",
              device,
              timeNs: first?.timeNs ?? lastNs(),
              message: `${deviceName(device)}: ${count(neighbours)} of ${count(segments)} mapped pieces (${share(neighbours / segments)}) continue in memory where the one before ended.`,
              evidence: first ? [first] : [],
            });
      },
    };
  },
};
