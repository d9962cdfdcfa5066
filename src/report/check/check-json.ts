/**
 * A check as data: `dmalink.check/1`, and `dmalink.check-set/1` for several traces.
 *
 * Addresses are hex strings; times are seconds, as the trace itself prints them; lengths are bytes.
 */
import type { CheckResult, Evidence, Finding } from "../../analysis/index.ts";
import { hex } from "../../base/index.ts";
import type { Trace } from "../../trace/index.ts";

/** Seconds on the trace's own clock. */
export const secondsOf = (timeNs: number, timeBase: bigint): number =>
  Number((timeBase + BigInt(Math.round(timeNs))) / 1000n) / 1e6;

/** One finding, as in `dmalink.check/1`. */
export function findingJson(finding: Finding, trace: Pick<Trace, "timeBase">): object {
  const { rule, severity, confidence, device, iova, length, timeNs, message, advice, evidence } = finding;
  return {
    rule,
    severity,
    device: device ?? null,
    iova: iova === undefined ? null : hex(iova),
    length: length ?? null,
    time: secondsOf(timeNs, trace.timeBase),
    message,
    evidence: evidence.map((event) => evidenceJson(event, trace.timeBase)),
    confidence,
    advice,
  };
}

/** One event of a finding. */
export function evidenceJson(
  { what, event, timeNs, cpu, pid, task, iova, length, site }: Evidence,
  base: bigint,
): object {
  const before = timeNs < 0;
  return {
    what,
    ...(before ? { time: null } : { event, time: secondsOf(timeNs, base), cpu, task: `${task}-${pid}` }),
    ...(iova !== undefined && { iova: hex(iova) }),
    ...(length !== undefined && { length }),
    ...(site !== undefined && { site }),
  };
}

/** The whole answer for one file. */
export function checkJson(
  file: string,
  trace: {
    readonly timeBase: bigint;
    readonly damage?: object | undefined;
    readonly remarks?: readonly object[];
    readonly timing?: object;
  },
  result: CheckResult,
): object {
  const { summary, findings, ambiguous, unknownStart, liveAtEnd, endUnsaid, eventTotal, lost } = result;
  return {
    schema: "dmalink.check/1",
    file,
    summary,
    findings: findings.map((finding) => findingJson(finding, trace)),
    ambiguous,
    unknownStart,
    liveAtEnd,
    endUnsaid,
    events: eventTotal,
    lost,
    ...(trace.damage && { damage: trace.damage }),
    ...(trace.remarks?.length && { remarks: trace.remarks }),
    ...(trace.timing && { timing: trace.timing }),
  };
}
