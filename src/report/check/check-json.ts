/**
 * A check as data: `dmalink.check/1`, and `dmalink.check-set/1` for several traces.
 *
 * Addresses are hex strings; times are seconds, as the trace itself prints them; lengths are bytes.
 */
import type { CheckResult, Evidence, Finding, KernelSummary, Selection } from "../../analysis/index.ts";
import { hex } from "../../base/index.ts";
import type { Trace } from "../../trace/index.ts";
import { selectionJson } from "../wording.ts";
import { secondsOf } from "./clock.ts";
import { faultJson } from "./fault-json.ts";
import { liveJson } from "./live-json.ts";

/** One finding, as in `dmalink.check/1`. */
export function findingJson(finding: Finding, trace: Pick<Trace, "timeBase">): object {
  const { rule, severity, confidence, device, iova, length, timeNs, message, advice, evidence, caller, code } = finding;
  return {
    rule,
    severity,
    device: device ?? null,
    iova: iova === undefined ? null : hex(iova),
    length: length ?? null,
    time: timeNs < 0 ? null : secondsOf(timeNs, trace.timeBase),
    message,
    ...(caller !== undefined && { caller, code }),
    ...faultJson(finding, trace.timeBase),
    evidence: evidence.map((event) => evidenceJson(event, trace.timeBase)),
    confidence,
    advice,
  };
}

/** One event of a finding, or a line of the kernel's log. */
export function evidenceJson(evidence: Evidence, base: bigint): object {
  const { what, event, timeNs, cpu, pid, task, iova, length, site, code, text, line } = evidence;
  const before = timeNs < 0;
  const inLog = event === "kernel log";
  return {
    what,
    ...(before ? { time: null } : { event, time: secondsOf(timeNs, base) }),
    ...(!before && !inLog && { cpu, task: `${task}-${pid}` }),
    ...(text !== undefined && { text }),
    ...(line !== undefined && { line }),
    ...(iova !== undefined && { iova: hex(iova) }),
    ...(length !== undefined && { length }),
    ...(site !== undefined && { site }),
    ...(code && { code }),
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
    readonly selection?: Selection;
  },
  result: CheckResult,
): object {
  const { summary, severities, findings, eventTotal, lost, kernel } = result;
  const { mappings, failed, ambiguous, unknownStart, liveAtEnd, endNotRecorded, live } = result;
  return {
    schema: "dmalink.check/1",
    file,
    summary,
    severities,
    findings: findings.map((finding) => findingJson(finding, trace)),
    mappings,
    failed,
    ambiguous,
    unknownStart,
    liveAtEnd,
    endNotRecorded,
    ...(live && { live: liveJson(live, trace.timeBase) }),
    events: eventTotal,
    lost,
    ...(result.wentBack > 0 && { wentBack: result.wentBack }),
    ...(kernel.messages > 0 && { kernel: kernelJson(kernel) }),
    ...selectionJson(trace.selection),
    ...(trace.damage && { damage: trace.damage }),
    ...(trace.remarks?.length && { remarks: trace.remarks }),
    ...(trace.timing && { timing: trace.timing }),
  };
}

/** What the kernel's lines held besides the findings. */
const kernelJson = ({ clock, unknown, ...rest }: KernelSummary): object => ({
  ...rest,
  unknown: { count: unknown.count, first: unknown.first.map(({ text, line }) => ({ text, line: line ?? null })) },
  clock: clock ?? null,
});
