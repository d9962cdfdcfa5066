/** Unmaps of mappings that began before the recording: whether they are right cannot be known. */
import type { Evidence } from "./finding.ts";
import type { Rule } from "./rule.ts";
import { plural } from "./words.ts";

const EXAMPLES = 3;

export const unknownStart: Rule = {
  name: "unknown-start",
  severity: "advice",
  summary: "ends of mappings that were not seen to begin: mapped before the recording, or never",
  advice:
    "Give what was mapped at the start (--dma-dump with a copy of debugfs dma-api/dump, or --snapshot), or begin to record before the driver is bound; then each of these is judged.",
  watch: ({ deviceName, current, report }) => {
    const seen = new Map<number, { count: number; timeNs: number; examples: Evidence[] }>();
    return {
      unmatched(end, reason) {
        if (reason.why !== "unknown-start") return;
        const evidence = current("ended", end.iova, end.length >= 0 ? end.length : undefined);
        const device = seen.get(end.device) ?? { count: 0, timeNs: evidence.timeNs, examples: [] };
        seen.set(end.device, device);
        device.count++;
        if (device.examples.length < EXAMPLES) device.examples.push(evidence);
      },
      finish() {
        for (const [device, { count, timeNs, examples }] of seen)
          report({
            confidence: "possible",
            device,
            timeNs,
            message: `${deviceName(device)}: ${plural(count, "end")} of mappings that were not seen to begin; they may have been mapped before the recording.`,
            evidence: examples,
          });
      },
    };
  },
};
