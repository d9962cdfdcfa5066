/** An unmap of another size than the map. */
import { FROM_BEFORE, SCATTERLIST, TWO_STEP } from "../lifetimes/table.ts";
import type { Rule } from "./rule.ts";
import { address, noun, size } from "./words.ts";

export const sizeMismatch: Rule = {
  name: "size-mismatch",
  severity: "error",
  summary: "an unmap gives another size than the map did",
  advice:
    "Keep the length that was mapped and unmap with it: too little leaves pages that the device can reach, too much takes someone else's.",
  watch: ({ table, deviceName, begun, current, isDoubtful, report }) => ({
    closed(row, end) {
      if (end.length < 0 || table.kind[row] === TWO_STEP || table.kind[row] === SCATTERLIST) return;
      if (end.length === table.length[row]) return;
      if ((table.flags[row]! & FROM_BEFORE) === 0 && isDoubtful(table.startNs[row]!)) return;
      report({
        device: end.device,
        iova: end.iova,
        length: end.length,
        message: `${deviceName(end.device)}: the ${noun(table.kind[row]!)} of ${size(table.length[row]!)} at ${address(end.iova)} is unmapped as ${size(end.length)}.`,
        evidence: [begun(row), current("unmapped", end.iova, end.length)],
      });
    },
  }),
};
