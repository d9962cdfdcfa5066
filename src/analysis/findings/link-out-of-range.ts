/** A link past the end of its range. */
import { FROM_BEFORE } from "../lifetimes/table.ts";
import type { Rule } from "./rule.ts";
import { address, count, size } from "./words.ts";

export const linkOutOfRange: Rule = {
  name: "link-out-of-range",
  severity: "error",
  summary: "a two-step link reaches past the end of its range",
  advice:
    "Reserve as many bytes as will be linked: the kernel does not check, and the link takes address space of a neighbour.",
  watch: ({ table, deviceName, begun, current, report }) => ({
    linking(row, offset, length) {
      if ((table.flags[row]! & FROM_BEFORE) !== 0 || offset + length <= table.reserved[row]!) return;
      const past = offset + length - table.reserved[row]!;
      report({
        device: table.device[row]!,
        iova: table.iova[row]! + offset,
        length,
        message: `${deviceName(table.device[row]!)}: the link of ${size(length)} at offset ${count(offset)} ends ${size(past)} past the range of ${size(table.reserved[row]!)} at ${address(table.iova[row]!)}.`,
        evidence: [begun(row, "reserved"), current("linked", table.iova[row]! + offset, length)],
      });
    },
  }),
};
