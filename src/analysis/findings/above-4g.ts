/** Device addresses above 4 GiB: the allocator had found no room below. */
import { TRANSLATED } from "../lifetimes/table.ts";
import type { Evidence } from "./finding.ts";
import type { Rule } from "./rule.ts";
import { address, count } from "./words.ts";

const LIMIT = 2 ** 32;

export const above4g: Rule = {
  name: "above-4g",
  severity: "warning",
  summary: "device addresses above 4 GiB: the kernel looks below first, and once did not find room",
  advice:
    "Look for leaks or very large mappings that filled the space below 4 GiB: after the first failure the kernel goes above for good, which needs longer addresses and deeper tables. With iommu.forcedac=1 it is meant so.",
  watch: ({ table, deviceName, begun, report }) => {
    const seen = new Map<number, { below: number; above: number; first: Evidence | undefined }>();
    return {
      opened(row) {
        if (table.reached[row] !== TRANSLATED) return;
        const device = table.device[row]!;
        let known = seen.get(device);
        if (!known) {
          known = { below: 0, above: 0, first: undefined };
          seen.set(device, known);
        }
        if (table.iova[row]! < LIMIT) known.below++;
        else if (++known.above === 1) known.first = begun(row);
      },
      finish() {
        for (const [device, { below, above, first }] of seen)
          if (first)
            report({
              device,
              iova: first.iova!,
              timeNs: first.timeNs,
              message: `${deviceName(device)}: ${count(above)} of ${count(above + below)} mappings lie above 4 GiB, the first at ${address(first.iova!)}: the space below was full once.`,
              evidence: [first],
            });
      },
    };
  },
};
