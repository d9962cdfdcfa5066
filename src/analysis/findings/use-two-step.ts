/** Many one-shot maps of one request. */
import { PAGE_SIZE } from "../../base/index.ts";
import { ONE_SHOT, TRANSLATED } from "../lifetimes/table.ts";
import type { Evidence } from "./finding.ts";
import type { Rule } from "./rule.ts";
import { count, plural } from "./words.ts";

/** Maps further apart are not of one request: between two requests a driver does more. */
const APART_NS = 5_000;
/** Segments from which a request counts, and requests from which it is said. */
const LEAST_SEGMENTS = 4;
const LEAST_REQUESTS = 16;

/** One-shot maps in a row, by one task for one device. */
interface Burst {
  segments: number;
  /** Unmapped so far, and whether that was one right behind the other. */
  ended: number;
  inRow: boolean;
}

interface Last {
  device: number;
  direction: number;
  pid: number;
  timeNs: number;
  row: number;
  id: number;
  /** The piece ends where a page ends. */
  whole: boolean;
}

export const useTwoStep: Rule = {
  name: "use-two-step",
  severity: "advice",
  summary: "requests of many segments are mapped segment by segment",
  advice:
    "Reserve one range for the request and link its segments into it (dma_iova_try_alloc, dma_iova_link, dma_iova_sync, dma_iova_destroy); dmalink compare shows what that saves for this load.",
  watch: ({ table, deviceName, now, begun, lastNs, report }) => {
    const lasts: (Last | undefined)[] = [];
    /** By row: its burst, while it lives. */
    const bursts = new Map<number, Burst>();
    const lastEnded: (Burst | undefined)[] = [];
    const seen = new Map<number, { requests: number; segments: number; first: Evidence }>();
    return {
      opened(row) {
        if (table.kind[row] !== ONE_SHOT || table.reached[row] !== TRANSLATED) {
          lasts[now.cpu] = undefined;
          return;
        }
        const device = table.device[row]!;
        const direction = table.direction[row]!;
        const last = lasts[now.cpu];
        const phys = table.phys[row]!;
        const whole = (phys + table.length[row]!) % PAGE_SIZE === 0;
        if (!last) {
          lasts[now.cpu] = { device, direction, pid: now.pid, timeNs: now.timeNs, row, id: table.id[row]!, whole };
          return;
        }
        // Only pieces that meet at page borders can be linked into one range: buffers of a network card do not.
        const same =
          last.device === device &&
          last.direction === direction &&
          last.pid === now.pid &&
          last.whole &&
          phys % PAGE_SIZE === 0;
        if (same && now.timeNs - last.timeNs < APART_NS && table.isLive(last.row) && table.id[last.row] === last.id) {
          let burst = bursts.get(last.row);
          if (!burst) {
            burst = { segments: 1, ended: 0, inRow: true };
            bursts.set(last.row, burst);
          }
          burst.segments++;
          bursts.set(row, burst);
        }
        last.device = device;
        last.direction = direction;
        last.pid = now.pid;
        last.timeNs = now.timeNs;
        last.row = row;
        last.id = table.id[row]!;
        last.whole = whole;
      },
      closed(row) {
        const burst = bursts.get(row);
        if (burst) {
          bursts.delete(row);
          if (burst.ended > 0 && lastEnded[now.cpu] !== burst) burst.inRow = false;
          burst.ended++;
          if (burst.ended === burst.segments && burst.inRow && burst.segments >= LEAST_SEGMENTS) {
            const device = table.device[row]!;
            const known = seen.get(device) ?? { requests: 0, segments: 0, first: begun(row) };
            seen.set(device, known);
            known.requests++;
            known.segments += burst.segments;
          }
        }
        lastEnded[now.cpu] = burst;
      },
      dropped: (row) => void bursts.delete(row),
      finish() {
        for (const [device, { requests, segments, first }] of seen)
          if (requests >= LEAST_REQUESTS)
            report({
              confidence: "possible",
              device,
              timeNs: first.timeNs < 0 ? lastNs() : first.timeNs,
              message: `${deviceName(device)}: ${count(segments)} one-shot maps look like ${plural(requests, "request")} of ${(segments / requests).toFixed(1)} segments. Two-step would search for address space ${count(requests)} times instead of ${count(segments)}, and in strict mode invalidate as often.`,
              evidence: [first],
            });
      },
    };
  },
};
