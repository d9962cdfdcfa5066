/** How much of the entries that VFIO allows is used. */
import { NO_DEVICE } from "../lifetimes/table.ts";
import { ENTRY_BUDGET } from "../user-mappings.ts";
import type { Evidence } from "./finding.ts";
import type { Rule } from "./rule.ts";
import { count, share } from "./words.ts";

/** Share at which it is said. */
const SHARE = 0.75;

export const entryBudget: Rule = {
  name: "entry-budget",
  severity: "warning",
  summary: "user mappings come near the 65,535 entries that VFIO allows",
  advice:
    "Map fewer, larger pieces (huge pages, one call for contiguous memory), or raise dma_entry_limit of vfio_iommu_type1; the next map beyond it fails with ENOSPC. iommufd has no such limit.",
  watch: ({ iommu, user, current, report }) => {
    let pieces = 0;
    let at: Evidence | undefined;
    return {
      iommuMapped() {
        const { live } = iommu.waiting;
        if (live <= pieces) return;
        pieces = live;
        if (pieces >= ENTRY_BUDGET * SHARE && pieces % 1024 === 0) at = current("mapped");
      },
      finish() {
        if (pieces < ENTRY_BUDGET * SHARE || !at) return;
        // Many pieces of memory may be one mapping: only what is unmapped on its own is an entry.
        user.settle(iommu.waiting);
        const peak = user.peak();
        if (peak < ENTRY_BUDGET * SHARE) return;
        report({
          confidence: "possible",
          device: NO_DEVICE,
          timeNs: at.timeNs,
          message: `Up to ${count(peak)} mappings without a device's name were there at once: ${share(peak / ENTRY_BUDGET)} of the ${count(ENTRY_BUDGET)} entries of VFIO, if all were in one container.`,
          evidence: [at],
        });
      },
    };
  },
};
