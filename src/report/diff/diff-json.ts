/** Two traces held against each other, as data: `dmalink.diff/1`. Lengths are bytes, times nanoseconds; what is not shown is null. */
import type { Selection } from "../../analysis/index.ts";
import { selectionJson } from "../wording.ts";
import type { TraceDiff } from "./diff.ts";
import type { TraceSide } from "./trace-side.ts";

/** The whole answer. */
export function diffJson(diff: TraceDiff, selection?: Selection): object {
  const { before, after, incomparable, otherwise, measures, findings, regressions, unjudged } = diff;
  return {
    schema: "dmalink.diff/1",
    before: sideJson(before),
    after: sideJson(after),
    ...selectionJson(selection),
    comparable: incomparable.length === 0,
    incomparable,
    otherwise,
    measures: measures.map(({ measure: { name, unit, perRequest, worse }, before, after, change }) => ({
      name,
      unit,
      perRequest,
      moreIsWorse: worse,
      before: before ?? null,
      after: after ?? null,
      change: change ?? null,
    })),
    findings: findings.map(({ rule, severity, device, by, before, after, example }) => ({
      change: before === 0 ? "new" : after === 0 ? "gone" : before === after ? "same" : "changed",
      rule,
      severity,
      device: device ?? null,
      by: by ?? null,
      before,
      after,
      message: example.message,
    })),
    regressions,
    unjudged,
  };
}

const sideJson = ({ file, format, damage, result, machine }: TraceSide): object => ({
  file,
  format,
  ...(damage && { damage }),
  events: result.eventTotal,
  lost: result.lost,
  durationNs: result.durationNs,
  mappings: result.mappings,
  liveAtEnd: result.liveAtEnd,
  summary: result.summary,
  severities: result.severities,
  recorded: { reached: machine.reached ?? null, mode: machine.mode ?? null, cachingMode: machine.cachingMode },
});
