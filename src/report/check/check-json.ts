/**
 * Checks as data: `dmalink.check/2`, the same for one trace and for many.
 *
 * Idea: findings are one list, each with the trace that it is of; what was read is another, an entry a trace. Addresses are hex
 * strings, times whole nanoseconds on the trace's own clock, lengths bytes. Promises: a trace that could not be read is named in
 * `unread`, so that nothing looks clean that was not looked at.
 */
import { type Evidence, type Finding, type KernelSummary, SEVERITIES } from "../../analysis/index.ts";
import { hex } from "../../base/index.ts";
import type { Trace } from "../../trace/index.ts";
import { selectionJson } from "../wording.ts";
import { type CheckOutcome, checkedOf, summaryOf, unreadOf } from "./check-set.ts";
import type { CheckedTrace } from "./check-text.ts";
import { clockNs } from "./clock.ts";
import { faultJson } from "./fault-json.ts";
import { liveJson } from "./live-json.ts";

/** The whole answer, of as many traces as there are. */
export function checkJson(outcomes: readonly CheckOutcome[]): object {
  const checked = checkedOf(outcomes);
  return {
    schema: "dmalink.check/2",
    summary: summaryOf(checked),
    severities: Object.fromEntries(
      SEVERITIES.map((name) => [name, checked.reduce((sum, { result }) => sum + result.severities[name], 0)]),
    ),
    findings: checked.flatMap((one) =>
      one.result.findings.map((finding) => ({ file: one.file, ...findingJson(finding, one) })),
    ),
    traces: checked.map(traceJson),
    unread: unreadOf(outcomes).map(({ file, message }) => ({ file, message })),
  };
}

/** One finding, as in `dmalink.check/2`. */
export function findingJson(finding: Finding, trace: Pick<Trace, "timeBase">): object {
  const { rule, severity, confidence, device, iova, length, timeNs, message, advice, evidence, caller, code } = finding;
  return {
    rule,
    severity,
    device: device ?? null,
    iova: iova === undefined ? null : hex(iova),
    length: length ?? null,
    timeNs: timeNs < 0 ? null : clockNs(timeNs, trace.timeBase),
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
    ...(before ? { timeNs: null } : { event, timeNs: clockNs(timeNs, base) }),
    ...(!before && !inLog && { cpu, task: `${task}-${pid}` }),
    ...(text !== undefined && { text }),
    ...(line !== undefined && { line }),
    ...(iova !== undefined && { iova: hex(iova) }),
    ...(length !== undefined && { length }),
    ...(site !== undefined && { site }),
    ...(code && { code }),
  };
}

/** What was read of one trace, and what is not a finding. */
function traceJson({ file, result, ...trace }: CheckedTrace): object {
  const { summary, severities, eventTotal, lost, kernel, live } = result;
  const { mappings, failed, ambiguous, unknownStart, liveAtEnd, endNotRecorded } = result;
  return {
    file,
    format: trace.format,
    events: eventTotal,
    lost,
    durationNs: result.durationNs,
    ...(trace.timing && { timing: trace.timing }),
    summary,
    severities,
    mappings,
    failed,
    ambiguous,
    unknownStart,
    liveAtEnd,
    endNotRecorded,
    ...(live && { live: liveJson(live, trace.timeBase) }),
    ...(result.wentBack > 0 && { wentBack: result.wentBack }),
    ...(kernel.messages > 0 && { kernel: kernelJson(kernel) }),
    ...selectionJson(trace.selection),
    ...(trace.damage && { damage: trace.damage }),
    ...(trace.remarks?.length && { remarks: trace.remarks }),
  };
}

/** What the kernel's lines held besides the findings. */
const kernelJson = ({ clock, unknown, ...rest }: KernelSummary): object => ({
  ...rest,
  unknown: { count: unknown.count, first: unknown.first.map(({ text, line }) => ({ text, line: line ?? null })) },
  clock: clock ?? null,
});
