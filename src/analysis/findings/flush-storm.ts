/** Many invalidations in a short time. */
import { NO_DEVICE } from "../lifetimes/table.ts";
import type { Evidence } from "./finding.ts";
import type { Rule } from "./rule.ts";
import { count, time } from "./words.ts";

const WINDOW_NS = 10_000_000;
/** Invalidations in a window that are a storm: 100,000 a second. */
const STORM = 1000;

export const flushStorm: Rule = {
  name: "flush-storm",
  severity: "warning",
  summary: "100,000 IOTLB invalidations a second or more (needs invalidation events)",
  advice:
    "Unmap more at once: two-step or a scatterlist for what belongs together, lazy invalidation (iommu.strict=0) for trusted devices, or mappings that are kept.",
  watch: ({ now, current, report }) => {
    let total = 0;
    let inWindow = 0;
    let windowNs = Number.NEGATIVE_INFINITY;
    let storms = 0;
    let worst = 0;
    let at: Evidence | undefined;
    return {
      flushed() {
        total++;
        if (now.timeNs - windowNs >= WINDOW_NS) {
          windowNs = now.timeNs;
          inWindow = 0;
        }
        inWindow++;
        if (inWindow === STORM) storms++;
        if (inWindow >= STORM && inWindow > worst) {
          worst = inWindow;
          if (worst % STORM === 0) at = current("invalidated");
        }
      },
      finish() {
        if (!at) return;
        report({
          device: NO_DEVICE,
          timeNs: at.timeNs,
          message: `${count(worst)} IOTLB invalidations within ${time(WINDOW_NS)}, and ${count(storms)} such moments; ${count(total)} in all.`,
          evidence: [at],
        });
      },
    };
  },
};
