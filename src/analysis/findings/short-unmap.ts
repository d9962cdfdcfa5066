/** The IOMMU took back less than it was asked to. */
import { NO_DEVICE } from "../lifetimes/table.ts";
import type { Rule } from "./rule.ts";
import { address, size } from "./words.ts";

export const shortUnmap: Rule = {
  name: "short-unmap",
  severity: "error",
  summary: "the IOMMU unmapped less than it was asked to",
  advice:
    "Look for a hole or a wrong length in what was mapped: an unmap stops at the first page that is not there, what lies behind it stays mapped, and its address is given to someone else.",
  watch: ({ current, report }) => ({
    iommuUnmapped(iova, asked, done) {
      if (done >= asked) return;
      report({
        device: NO_DEVICE,
        iova,
        length: asked,
        message: `The unmap of ${size(asked)} at ${address(iova)} took back ${size(done)}: ${done === 0 ? "nothing was mapped there" : `from ${address(iova + done)} on there was a hole`}.`,
        evidence: [current("unmapped", iova, asked)],
        selfEvident: true,
      });
    },
  }),
};
