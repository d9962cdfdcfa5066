/** Memory that is given back to the kernel while a device can reach it. */
import { PAGE_SIZE } from "../../base/index.ts";
import { PhysicalPages } from "../lifetimes/physical-pages.ts";
import { PAGES_GONE } from "../lifetimes/table.ts";
import type { Rule } from "./rule.ts";
import { address, size } from "./words.ts";

export const pageFreedWhileMapped: Rule = {
  name: "page-freed-while-mapped",
  severity: "warning",
  summary: "memory is freed while it is mapped for a device (needs kmem:mm_page_free events)",
  advice:
    "Unmap before the last reference to the page is dropped: what the device writes now lands in memory of someone else.",
  watch: ({ table, deviceName, begun, current, report }) => {
    const pages = new PhysicalPages(table);
    return {
      opened: (row) => pages.add(row),
      closed: (row) => pages.remove(row),
      dropped: (row) => pages.remove(row),
      freed(page, count) {
        pages.start();
        for (const at of PhysicalPages.run(page, Math.min(count, 1024))) {
          const row = pages.at(at).find((one) => (table.flags[one]! & PAGES_GONE) === 0);
          if (row === undefined) continue;
          report({
            confidence: "likely",
            device: table.device[row]!,
            iova: table.iova[row]!,
            length: table.length[row]!,
            message: `The page of memory at ${address(at * PAGE_SIZE)} is freed while ${deviceName(table.device[row]!)} has it mapped at ${address(table.iova[row]!)} (${size(table.length[row]!)}).`,
            evidence: [begun(row), current("freed")],
          });
        }
      },
    };
  },
};
