/** Scatterlists that the kernel's event shows only the beginning of. */
import type { Evidence } from "./finding.ts";
import type { Rule } from "./rule.ts";
import { count, plural } from "./words.ts";

export const truncatedScatterlist: Rule = {
  name: "truncated-scatterlist",
  severity: "warning",
  summary: "the kernel's event shows at most 128 entries of a scatterlist; what the others hold is unknown",
  advice:
    "Record iommu:map beside dma:*, which shows every page that is mapped, or limit the request's segments while you record.",
  watch: ({ table, deviceName, begun, report }) => {
    const seen = new Map<number, { lists: number; hidden: number; first: Evidence; timeNs: number }>();
    return {
      truncated(row, shown, full) {
        const device = table.device[row]!;
        const known = seen.get(device) ?? { lists: 0, hidden: 0, first: begun(row), timeNs: table.startNs[row]! };
        seen.set(device, known);
        known.lists++;
        known.hidden += full - shown;
      },
      finish() {
        for (const [device, { lists, hidden, first, timeNs }] of seen)
          report({
            device,
            timeNs,
            message: `${deviceName(device)}: ${plural(lists, "scatterlist")} with more entries than the event holds; ${count(hidden)} entries were not recorded, and nothing is said of them.`,
            evidence: [first],
            selfEvident: true,
          });
      },
    };
  },
};
