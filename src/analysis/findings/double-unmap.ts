/** A mapping that is unmapped twice, without having been mapped anew in between. */
import { ONE_SHOT, TWO_STEP } from "../lifetimes/table.ts";
import type { Rule } from "./rule.ts";
import { address, size, time } from "./words.ts";

const VERB = ["unmapped", "unmapped", "freed", "destroyed"];

export const doubleUnmap: Rule = {
  name: "double-unmap",
  severity: "error",
  summary: "a mapping ends a second time, with no beginning between",
  advice:
    "Clear the DMA address where it is unmapped first, or let one path own the unmap: the second one may take a mapping that someone else has just been given.",
  watch: ({ deviceName, evidence, current, now, report }) => ({
    unmatched(end, reason) {
      if (reason.why !== "again") return;
      const { earlier } = reason;
      const verb = VERB[end.kind] ?? "unmapped";
      const length = end.length >= 0 ? end.length : earlier.length;
      const where = end.kind === TWO_STEP ? `the two-step range at ${address(end.iova)}` : address(end.iova);
      report({
        confidence: earlier.start || end.kind !== ONE_SHOT ? "certain" : "likely",
        device: end.device,
        iova: end.iova,
        length,
        message: `${deviceName(end.device)}: ${where} (${size(length)}) is ${verb} again, ${now.timeNs === earlier.end.timeNs ? "right" : time(now.timeNs - earlier.end.timeNs)} after it was ${verb}; nothing was mapped there in between.`,
        evidence: [
          ...(earlier.start ? [evidence("mapped", earlier.start, end.iova, earlier.length)] : []),
          evidence(verb, earlier.end, end.iova, earlier.length),
          current(`${verb} again`, end.iova, length),
        ],
      });
    },
  }),
};
