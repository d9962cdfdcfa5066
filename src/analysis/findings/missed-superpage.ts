/** Contiguous memory in leaves of 4 KiB. */
import { NO_DEVICE } from "../lifetimes/table.ts";
import type { Rule } from "./rule.ts";
import { address, count, plural } from "./words.ts";

export const missedSuperpage: Rule = {
  name: "missed-superpage",
  severity: "advice",
  summary: "leaves of 4 KiB cover 2 MiB of memory that is contiguous",
  advice:
    "Map contiguous memory in one call, at an address that is aligned as the memory is (hugetlb, or a multiple of 2 MiB from it): one leaf of 2 MiB takes the place of 512, and of their IOTLB entries. It can then only be unmapped whole.",
  watch: ({ user, iommu, evidence, report }) => ({
    finish() {
      user.settle(iommu.waiting);
      const { fits, misplaced, first } = user.missed;
      if (!first) return;
      const both = [
        ...(fits > 0 ? [`${count(fits)} where one leaf would do as things are`] : []),
        ...(misplaced > 0 ? [`${count(misplaced)} where the address is not aligned as the memory is`] : []),
      ];
      report({
        confidence: "likely",
        device: NO_DEVICE,
        iova: first.iova,
        timeNs: first.place.timeNs,
        message: `Leaves of 4 KiB cover ${plural(fits + misplaced, "block")} of 2 MiB of contiguous memory: ${both.join(", ")}. The first is at ${address(first.iova)}, memory ${address(first.phys)}.`,
        evidence: [evidence("mapped", first.place, first.iova, 2 ** 21)],
      });
    },
  }),
};
