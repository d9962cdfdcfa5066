/** A scatterlist that is unmapped with another number of entries than it was mapped with. */
import { hasEntries } from "../lifetimes/lists.ts";
import { FROM_BEFORE, SCATTERLIST } from "../lifetimes/table.ts";
import type { Rule } from "./rule.ts";
import { address, count, noun } from "./words.ts";

export const entryCount: Rule = {
  name: "entry-count",
  severity: "error",
  summary: "a scatterlist is unmapped with another number of entries than it was mapped with",
  advice:
    "Give dma_unmap_sg the number of entries that dma_map_sg was given, not the number that it returned (or use an sg_table, which keeps both): the entries that are left out stay mapped, and bounced ones are not copied back.",
  watch: ({ table, deviceName, begun, current, isDoubtful, report }) => ({
    closed(row, { entries, device }) {
      if (entries < 0 || table.kind[row] !== SCATTERLIST) return;
      const mapped = table.entries[row]!;
      if (hasEntries(mapped, entries)) return;
      if ((table.flags[row]! & FROM_BEFORE) !== 0 || isDoubtful(table.startNs[row]!)) return;
      report({
        device,
        iova: table.iova[row]!,
        length: table.length[row]!,
        message: `${deviceName(device)}: the ${noun(SCATTERLIST)} at ${address(table.iova[row]!)} was mapped with ${count(mapped)} entries and is unmapped with ${count(entries)}.`,
        evidence: [begun(row), current("unmapped", table.iova[row]!)],
      });
    },
  }),
};
