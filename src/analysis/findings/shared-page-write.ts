/** Two devices that write the same memory at once. */
import { PAGE_SIZE, pagesTouched } from "../../base/index.ts";
import { PhysicalPages } from "../lifetimes/physical-pages.ts";
import { DIRECT, ONE_SHOT } from "../lifetimes/table.ts";
import type { Rule } from "./rule.ts";
import { address, size } from "./words.ts";

const TO_DEVICE = 1;
const FROM_DEVICE = 2;

export const sharedPageWrite: Rule = {
  name: "shared-page-write",
  severity: "error",
  summary: "two devices may write the same memory at once",
  advice:
    "Give each device memory of its own, or hand it from one to the other with an unmap between: who writes last is chance.",
  watch: ({ table, deviceName, begun, report }) => {
    const pages = new PhysicalPages(table);
    const told = new Set<string>();
    return {
      opened(row) {
        if (!pages.on && table.devices.length > 1) pages.start(row);
        if (!pages.on || table.direction[row] === TO_DEVICE) return;
        if (table.kind[row] !== ONE_SHOT || table.reached[row] === DIRECT) return;
        const phys = table.phys[row]!;
        const end = phys + table.length[row]!;
        const first = Math.floor(phys / PAGE_SIZE);
        const sharesBytes = (other: number): boolean =>
          table.phys[other]! < end && phys < table.phys[other]! + table.length[other]!;
        for (let page = first; page < first + Math.min(64, pagesTouched(phys, table.length[row]!)); page++) {
          const others = pages
            .at(page)
            .filter((one) => table.device[one] !== table.device[row] && table.direction[one] !== TO_DEVICE);
          const other = others.find(sharesBytes) ?? others[0];
          if (other === undefined) continue;
          const sameBytes = sharesBytes(other);
          const key = `${table.device[other]} ${table.device[row]} ${sameBytes}`;
          if (!sameBytes && told.has(key)) continue; // neighbours in a page: said once
          told.add(key);
          const both = table.direction[other] === FROM_DEVICE && table.direction[row] === FROM_DEVICE;
          report({
            severity: sameBytes ? (both ? "error" : "warning") : "advice",
            confidence: sameBytes && both ? "certain" : "possible",
            device: table.device[row]!,
            iova: table.iova[row]!,
            length: table.length[row]!,
            message: sameBytes
              ? `${deviceName(table.device[row]!)} and ${deviceName(table.device[other]!)} may write the same bytes of memory at ${address(Math.max(phys, table.phys[other]!))} at once.`
              : `${deviceName(table.device[row]!)} and ${deviceName(table.device[other]!)} write different bytes of one page of memory (${size(PAGE_SIZE)} at ${address(page * PAGE_SIZE)}); an IOMMU protects whole pages, so each can reach the other's.`,
            evidence: [begun(other, "mapped first"), begun(row, "mapped as well")],
          });
          break;
        }
        pages.add(row);
      },
      closed: (row) => pages.remove(row),
      dropped: (row) => pages.remove(row),
    };
  },
};
