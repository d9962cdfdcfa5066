/** How much of the entries that VFIO allows is used. */
import { NO_DEVICE } from "../lifetimes/table.ts";
import type { Evidence } from "./finding.ts";
import type { Rule } from "./rule.ts";
import { count, share } from "./words.ts";

/** Mappings that a VFIO container allows unless it is told otherwise. */
const BUDGET = 65_535;
/** Share at which it is said. */
const SHARE = 0.75;

export const entryBudget: Rule = {
  name: "entry-budget",
  severity: "warning",
  summary: "user mappings come near the 65,535 entries that VFIO allows",
  advice:
    "Map fewer, larger pieces (huge pages, one call for contiguous memory), or raise dma_entry_limit of vfio_iommu_type1; the next map beyond it fails with ENOSPC.",
  watch: ({ iommu, current, report }) => {
    let peak = 0;
    let at: Evidence | undefined;
    return {
      iommuMapped() {
        const { live } = iommu.waiting;
        if (live <= peak) return;
        peak = live;
        if (peak >= BUDGET * SHARE && peak % 1024 === 0) at = current("mapped");
      },
      finish() {
        if (peak < BUDGET * SHARE || !at) return;
        report({
          confidence: "possible",
          device: NO_DEVICE,
          timeNs: at.timeNs,
          message: `Up to ${count(peak + 1)} pieces of memory without a device's name were mapped at once: ${share(peak / BUDGET)} of the ${count(BUDGET)} entries of VFIO, if each was a mapping of its own.`,
          evidence: [at],
        });
      },
    };
  },
};
