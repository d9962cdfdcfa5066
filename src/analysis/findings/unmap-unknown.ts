/** An unmap at an address where nothing was mapped. */
import { TWO_STEP } from "../lifetimes/table.ts";
import type { Confidence, Evidence } from "./finding.ts";
import type { Rule } from "./rule.ts";
import { address, noun, size } from "./words.ts";

export const unmapUnknown: Rule = {
  name: "unmap-unknown",
  severity: "error",
  summary: "an unmap names an address where no mapping begins",
  advice:
    "Unmap with exactly the address that the map returned: keep it beside the buffer instead of working it out again, and check it for failure before it is stored.",
  watch: ({ table, deviceName, begun, current, report }) => ({
    unmatched(end, reason) {
      if (reason.why === "again" || reason.why === "unknown-start" || reason.why === "at-start") return;
      const length = end.length >= 0 ? end.length : undefined;
      const what = `${deviceName(end.device)}: the unmap of ${address(end.iova)}${length === undefined ? "" : ` (${size(length)})`}`;
      let message: string;
      let confidence: Confidence = "certain";
      const evidence: Evidence[] = [];
      if (reason.why === "inside") {
        const { row } = reason;
        const offset = end.iova - table.iova[row]!;
        evidence.push(begun(row));
        message =
          offset === 0 && table.kind[row] === TWO_STEP
            ? `${what} is by the one-shot call, but a two-step range of ${size(table.reserved[row]!)} lives there.`
            : `${what} begins ${size(offset)} inside the ${noun(table.kind[row]!)} of ${size(table.reserved[row]!)} at ${address(table.iova[row]!)}, which stays.`;
      } else if (reason.why === "elsewhere") {
        const { row } = reason;
        evidence.push(begun(row));
        message = `${what} names an address that is not mapped; the pages taken back just before are those of ${address(table.iova[row]!)}.`;
      } else if (reason.why === "nothing-there") {
        message = `${what} found nothing mapped: the IOMMU took back 0 bytes.`;
      } else {
        confidence = "likely";
        message = `${what} names nothing that was mapped: neither in this recording nor in the start state given.`;
      }
      report({
        confidence,
        device: end.device,
        iova: end.iova,
        ...(length !== undefined && { length }),
        message,
        evidence: [...evidence, current("unmapped", end.iova, length)],
      });
    },
  }),
};
