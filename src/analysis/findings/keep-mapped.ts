/** The same memory mapped again and again. */
import { PAGE_SIZE } from "../../base/index.ts";
import { DIRECT, ONE_SHOT } from "../lifetimes/table.ts";
import type { Rule } from "./rule.ts";
import { count, plural, share } from "./words.ts";

/** Maps of one page that are "again and again". */
const OFTEN = 16;
const LEAST_MAPS = 256;
const LEAST_SHARE = 0.5;
/** Pages of a device that are counted. */
const MOST_PAGES = 65_536;

export const keepMapped: Rule = {
  name: "keep-mapped",
  severity: "advice",
  summary: "the same pages are mapped and unmapped again and again",
  advice:
    "Keep them mapped: a page pool (network), premapped buffers, or one long-lived mapping with dma_sync_* around each use saves the map, the unmap and the invalidation.",
  watch: ({ table, deviceName, firstNs, report }) => {
    interface Seen {
      maps: number;
      /** How often a page was mapped. */
      readonly pages: Map<number, number>;
      /** Maps of pages that were mapped often. */
      again: number;
      often: number;
    }
    const seen: (Seen | undefined)[] = [];
    return {
      opened(row) {
        if (table.kind[row] !== ONE_SHOT || table.reached[row] === DIRECT) return;
        const device = table.device[row]!;
        let known = seen[device];
        if (!known) {
          known = { maps: 0, pages: new Map(), again: 0, often: 0 };
          seen[device] = known;
        }
        known.maps++;
        const page = Math.floor(table.phys[row]! / PAGE_SIZE);
        const times = (known.pages.get(page) ?? 0) + 1;
        if (times === 1 && known.pages.size >= MOST_PAGES) return;
        known.pages.set(page, times);
        if (times === OFTEN) {
          known.often++;
          known.again += OFTEN;
        } else if (times > OFTEN) known.again++;
      },
      finish() {
        for (const [device, known] of seen.entries()) {
          if (!known || known.maps < LEAST_MAPS || known.again < known.maps * LEAST_SHARE) continue;
          report({
            confidence: "likely",
            device,
            timeNs: firstNs(),
            message: `${deviceName(device)}: ${count(known.again)} of ${count(known.maps)} maps (${share(known.again / known.maps)}) begin in the same ${plural(known.often, "page")} of memory, each mapped ${OFTEN} times or more.`,
            evidence: [],
          });
        }
      },
    };
  },
};
