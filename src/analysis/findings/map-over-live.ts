/** A mapping at an address of the device that another live mapping has. */
import type { Rule } from "./rule.ts";
import { address, noun, size, time } from "./words.ts";

export const mapOverLive: Rule = {
  name: "map-over-live",
  severity: "error",
  summary: "an address is mapped while an earlier mapping of the same device lives there",
  advice:
    "The earlier mapping was never unmapped, or its address was freed too early (wrong size, second free): find its unmap from the task and time of its map.",
  watch: ({ table, deviceName, begun, suspicionOf, report }) => ({
    overlapped(row, older) {
      if (suspicionOf(older)) return; // another device took it: said by device-mismatch
      const device = table.device[row]!;
      report({
        device,
        iova: table.iova[row]!,
        length: table.reserved[row]!,
        message: `${deviceName(device)}: ${size(table.reserved[row]!)} at ${address(table.iova[row]!)} is mapped over the ${noun(table.kind[older]!)} of ${size(table.reserved[older]!)} at ${address(table.iova[older]!)}, live since ${time(table.startNs[row]! - table.startNs[older]!)} and never unmapped.`,
        evidence: [begun(older, "mapped first"), begun(row, "mapped over it")],
      });
    },
  }),
};
