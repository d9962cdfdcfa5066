/** A call with the address of all ones, by which a failed map is told. */
import type { Rule } from "./rule.ts";
import { size } from "./words.ts";

export const invalidAddress: Rule = {
  name: "invalid-address",
  severity: "error",
  summary: "a mapping failed (all-ones came back), or the all-ones address is unmapped",
  advice:
    "Check every map with dma_mapping_error before its address is stored or given to the device. If maps fail: look at the device's DMA mask, the bounce buffer's size and leaks of address space.",
  watch: ({ deviceName, current, report }) => ({
    invalid(device, length, used) {
      report({
        device,
        ...(length >= 0 && { length }),
        message: used
          ? `${deviceName(device)}: the address of a mapping that failed (all-ones) is unmapped.`
          : `${deviceName(device)}: mapping ${size(length)} failed; all-ones came back instead of an address.`,
        evidence: [current(used ? "unmapped" : "failed", undefined, length)],
        selfEvident: true,
      });
    },
  }),
};
