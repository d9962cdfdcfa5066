/** The IOMMU took back more than it was asked to. */
import { NO_DEVICE } from "../lifetimes/table.ts";
import type { Rule } from "./rule.ts";
import { address, size } from "./words.ts";

export const longUnmap: Rule = {
  name: "long-unmap",
  severity: "error",
  summary: "the IOMMU unmapped more than it was asked to",
  advice:
    "Unmap whole mappings, and go by the size that comes back: a page inside a large leaf cannot go alone, so all of the leaf went, and devices fault on what is still thought mapped. Split the leaf first, or map in the pieces that will be unmapped.",
  watch: ({ current, report }) => ({
    iommuUnmapped(iova, asked, done) {
      if (done <= asked) return;
      report({
        device: NO_DEVICE,
        iova,
        length: asked,
        message: `The unmap of ${size(asked)} at ${address(iova)} took back ${size(done)}: what lies behind ${address(iova + asked)} went with it.`,
        evidence: [current("unmapped", iova, asked)],
        selfEvident: true,
      });
    },
  }),
};
