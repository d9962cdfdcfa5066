/** An unlink of what is not linked. */
import type { Rule } from "./rule.ts";
import { address, count, size } from "./words.ts";

export const unlinkHole: Rule = {
  name: "unlink-hole",
  severity: "error",
  summary: "a two-step unlink or destroy covers a part that is not linked",
  advice:
    "Unlink exactly what was linked: the unmap stops at the first hole, and what lies behind it stays reachable for the device.",
  watch: ({ table, deviceName, begun, current, isDoubtful, report }) => {
    const say = (row: number, offset: number, length: number, hole: number, verb: string): void => {
      if (hole < 0 || isDoubtful(table.startNs[row]!)) return;
      const iova = table.iova[row]! + offset;
      report({
        device: table.device[row]!,
        iova,
        length,
        message: `${deviceName(table.device[row]!)}: ${size(length)} at offset ${count(offset)} of the range at ${address(table.iova[row]!)} are ${verb}, but from offset ${count(hole)} on nothing is linked.`,
        evidence: [begun(row, "reserved"), current(verb, iova, length)],
      });
    };
    return {
      unlinking: (row, offset, length, hole) => say(row, offset, length, hole, "unlinked"),
      destroying: (row, mapped, _beyond, hole) => say(row, 0, mapped, hole, "destroyed"),
    };
  },
};
