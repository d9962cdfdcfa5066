/** Few mappings spread over much address space. */
import { TRANSLATED } from "../lifetimes/table.ts";
import type { Rule } from "./rule.ts";
import { count, share, size } from "./words.ts";

const LEAST_LIVE = 64;
const LEAST_SPAN = 2 ** 30;
const MOST_USED = 0.01;

export const iovaFragmentation: Rule = {
  name: "iova-fragmentation",
  severity: "warning",
  summary: "few mappings spread over much address space: searches for room become long",
  advice:
    "Look for small mappings that live long between large ones (compare their life in stats); a range of their own, or mappings that are kept, leaves the rest in one piece.",
  watch: ({ table, deviceName, lastNs, report }) => {
    interface Space {
      low: number;
      high: number;
      live: number;
      bytes: number;
      mostLive: number;
      mostBytes: number;
    }
    const spaces: (Space | undefined)[] = [];
    const ended = (row: number): void => {
      const space = table.reached[row] === TRANSLATED ? spaces[table.device[row]!] : undefined;
      if (!space) return;
      space.live--;
      space.bytes -= table.reserved[row]!;
    };
    return {
      opened(row) {
        if (table.reached[row] !== TRANSLATED) return;
        const device = table.device[row]!;
        let space = spaces[device];
        if (!space) {
          space = { low: Number.POSITIVE_INFINITY, high: 0, live: 0, bytes: 0, mostLive: 0, mostBytes: 0 };
          spaces[device] = space;
        }
        const start = table.iova[row]!;
        const end = start + table.reserved[row]!;
        if (start < space.low) space.low = start;
        if (end > space.high) space.high = end;
        space.bytes += table.reserved[row]!;
        if (++space.live > space.mostLive) space.mostLive = space.live;
        if (space.bytes > space.mostBytes) space.mostBytes = space.bytes;
      },
      closed: ended,
      dropped: ended,
      finish() {
        for (const [device, space] of spaces.entries()) {
          if (!space || space.mostLive < LEAST_LIVE || space.high - space.low < LEAST_SPAN) continue;
          const used = space.mostBytes / (space.high - space.low);
          if (used > MOST_USED) continue;
          report({
            confidence: "likely",
            device,
            iova: space.low,
            length: space.high - space.low,
            timeNs: lastNs(),
            message: `${deviceName(device)}: at most ${count(space.mostLive)} mappings (${size(space.mostBytes)}) live at once, spread over ${size(space.high - space.low)} of address space: ${share(used)} of it.`,
            evidence: [],
          });
        }
      },
    };
  },
};
