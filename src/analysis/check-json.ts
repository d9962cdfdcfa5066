/**
 * A check as data: `dmalink.check/1`, and SARIF 2.1.0 for the tools that show findings beside code.
 *
 * Addresses are hex strings; times are seconds, as the trace itself prints them; lengths are bytes.
 */
import { hex } from "../base/index.ts";
import type { Trace } from "../trace/index.ts";
import type { CheckResult } from "./check-trace.ts";
import type { Evidence, Finding } from "./findings/finding.ts";
import { RULES } from "./findings/rules.ts";

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

function evidenceJson({ what, event, timeNs, cpu, pid, task, iova, length, site }: Evidence, base: bigint): object {
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
  trace: { readonly timeBase: bigint; readonly damage?: object | undefined },
  result: CheckResult,
): object {
  const { summary, findings, ambiguous, unknownStart, liveAtEnd, endNotRecorded, eventTotal, lost } = result;
  return {
    schema: "dmalink.check/1",
    file,
    summary,
    findings: findings.map((finding) => findingJson(finding, trace)),
    ambiguous,
    unknownStart,
    liveAtEnd,
    endNotRecorded,
    events: eventTotal,
    lost,
    ...(trace.damage && { damage: trace.damage }),
  };
}

const LEVELS = { error: "error", warning: "warning", advice: "note" } as const;

/** One checked file. */
export interface CheckedFile {
  readonly file: string;
  readonly timeBase: bigint;
  readonly findings: readonly Finding[];
  /** Where it is damaged; the findings are of what lies before. */
  readonly damage?: { readonly message: string } | undefined;
}

/** One that could not be read at all. */
export interface UnreadFile {
  readonly file: string;
  readonly message: string;
}

const uriOf = (file: string): string => file.split("/").map(encodeURIComponent).join("/");

/** That it was not all read: a run without results is no clean one then. */
function invocationOf(files: readonly CheckedFile[], unread: readonly UnreadFile[]): object {
  const damaged = files.flatMap(({ file, damage }) => (damage ? [{ file, message: damage.message }] : []));
  const notifications = [...unread, ...damaged].map(({ file, message }) => ({
    level: "error",
    message: { text: message },
    locations: [{ physicalLocation: { artifactLocation: { uri: uriOf(file) } } }],
  }));
  return {
    executionSuccessful: notifications.length === 0,
    ...(notifications.length > 0 && { toolExecutionNotifications: notifications }),
  };
}

/** All findings of all files as one SARIF run. A finding has no line of code: its place is the trace and the address. */
export function checkSarif(files: readonly CheckedFile[], version: string, unread: readonly UnreadFile[] = []): object {
  return {
    $schema: "https://json.schemastore.org/sarif-2.1.0.json",
    version: "2.1.0",
    runs: [
      {
        tool: {
          driver: {
            name: "dmalink",
            version,
            rules: RULES.map(({ name, severity, summary, advice }) => ({
              id: name,
              shortDescription: { text: summary },
              help: { text: advice },
              defaultConfiguration: { level: LEVELS[severity] },
            })),
          },
        },
        invocations: [invocationOf(files, unread)],
        results: files.flatMap(({ file, timeBase, findings }) =>
          findings.map((finding) => ({
            ruleId: finding.rule,
            ruleIndex: RULES.findIndex(({ name }) => name === finding.rule),
            level: LEVELS[finding.severity],
            message: { text: `${finding.message} ${finding.advice}` },
            locations: [
              {
                physicalLocation: { artifactLocation: { uri: uriOf(file) } },
                logicalLocations: [
                  {
                    name: finding.device ?? "unknown device",
                    kind: "resource",
                    ...(finding.iova !== undefined && {
                      fullyQualifiedName: `${finding.device ?? "unknown"}/${hex(finding.iova)}`,
                    }),
                  },
                ],
              },
            ],
            properties: {
              time: secondsOf(finding.timeNs, timeBase),
              confidence: finding.confidence,
              evidence: finding.evidence.map((event) => evidenceJson(event, timeBase)),
            },
          })),
        ),
      },
    ],
  };
}
