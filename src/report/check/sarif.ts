/**
 * A check as SARIF 2.1.0, for the tools that show findings beside code.
 *
 * Idea: a finding has no line of code: its place is the trace, and the device and address in it. Promises: what was not read,
 * or is damaged, is told as a notification, and the run is then no successful one. Specified by: SARIF 2.1.0 (OASIS).
 */
import { type Finding, RULES } from "../../analysis/index.ts";
import { hex } from "../../base/index.ts";
import { evidenceJson } from "./check-json.ts";
import type { UnreadFile } from "./check-set.ts";
import { clockNs } from "./clock.ts";
import { faultJson } from "./fault-json.ts";

const LEVELS = { error: "error", warning: "warning", advice: "note" } as const;

/** One checked file. */
export interface CheckedFile {
  /** As it was named. */
  readonly file: string;
  /** Nanoseconds that its times count from. */
  readonly timeBase: bigint;
  /** What was found. */
  readonly result: {
    /** What the rules say. */
    readonly findings: readonly Finding[];
  };
  /** Where it is damaged; the findings are of what lies before. */
  readonly damage?:
    | {
        /** What was expected there, and what was found. */
        readonly message: string;
      }
    | undefined;
  /** What was not understood of it. */
  readonly remarks?: readonly {
    /** One sentence. */
    readonly message: string;
  }[];
}

const uriOf = (file: string): string => file.split("/").map(encodeURIComponent).join("/");

/** That it was not all read: a run without results is no clean one then. */
function invocationOf(files: readonly CheckedFile[], unread: readonly UnreadFile[]): object {
  const damaged = files.flatMap(({ file, damage }) => (damage ? [{ file, message: damage.message }] : []));
  const notificationOf =
    (level: "error" | "warning") =>
    ({ file, message }: UnreadFile): object => ({
      level,
      message: { text: message },
      locations: [{ physicalLocation: { artifactLocation: { uri: uriOf(file) } } }],
    });
  const notifications = [...unread, ...damaged].map(notificationOf("error"));
  const warnings = files
    .flatMap(({ file, remarks = [] }) => remarks.map(({ message }) => ({ file, message })))
    .map(notificationOf("warning"));
  return {
    executionSuccessful: notifications.length === 0,
    ...(notifications.length + warnings.length > 0 && { toolExecutionNotifications: [...notifications, ...warnings] }),
  };
}

/** All findings of all `files` as one SARIF run of dmalink `version`; `unread` are the files that could not be opened. */
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
        results: files.flatMap(({ file, timeBase, result }) =>
          result.findings.map((finding) => ({
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
              timeNs: finding.timeNs < 0 ? null : clockNs(finding.timeNs, timeBase),
              confidence: finding.confidence,
              ...(finding.caller !== undefined && { caller: finding.caller, code: finding.code }),
              ...faultJson(finding, timeBase),
              evidence: finding.evidence.map((event) => evidenceJson(event, timeBase)),
            },
          })),
        ),
      },
    ],
  };
}
