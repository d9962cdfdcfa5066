/** A check for people: what is wrong, where, and what to do, in lines that fit. */
import {
  type CheckResult,
  type Evidence,
  type Finding,
  type KernelSummary,
  RULES,
  SEVERITIES,
  type Selection,
  type Severity,
} from "../../analysis/index.ts";
import { bytes, count, duration, hex, plural } from "../../base/index.ts";
import type { Remark, Timing } from "../../trace/index.ts";
import { type Emphasis, PLAIN, type Style } from "../text/style.ts";
import { paragraph } from "../text/text-table.ts";
import { endNotRecordedNote, lostWords, NOTHING_RECORDED, selectionWords } from "../wording.ts";
import { secondsOf } from "./clock.ts";
import { liveText } from "./live-text.ts";

/** Findings of one rule that are printed; the others are counted. */
const SHOWN = 5;
/** Calling codes that are told apart. */
const MOST_CALLERS = 10;
const TO_DO = "What to do:";

/** What is needed of a trace after it is closed. */
export interface CheckedTrace {
  /** As it was named. */
  readonly file: string;
  /** Of which kind it is, in words. */
  readonly format: string;
  /** Nanoseconds that its times count from. */
  readonly timeBase: bigint;
  /** What its times count: of a kernel's log "dmesg", "wall" or "none". */
  readonly clock: string | undefined;
  /** Where it stopped making sense; undefined if it did not. */
  readonly damage:
    | {
        /** What was expected there, and what was found. */
        readonly message: string;
      }
    | undefined;
  /** What was not understood, and what the stamps are; a verdict never stands without it. */
  readonly remarks?: readonly Remark[];
  /** What the stamps are: a count is never printed as a duration. */
  readonly timing?: Timing;
  /** What was found. */
  readonly result: CheckResult;
  /** What was asked for, where that is not all. */
  readonly selection?: Selection;
}

/** The whole answer for one file. */
export function checkText(checked: CheckedTrace, style: Style = PLAIN): string {
  const { width } = style;
  const { file, format, result } = checked;
  const { findings, summary } = result;
  const verdict = isEmpty(result)
    ? nothing(checked)
    : `${headline(result.severities)}${result.wentBack > 0 ? " in a file whose times go back" : notUnderstood(checked.remarks)}`;
  const lines = [
    ...paragraph(`${file}: ${format}, ${extent(checked)}`, width),
    ...paragraph(followed(checked), width),
    ...[selectionWords(checked.selection)].filter((words) => words !== "").flatMap((words) => paragraph(words, width)),
    ...paragraph(verdict, width).map((line) => style.paint(verdictOf(checked), line)),
  ];
  for (const rule of RULES) {
    const own = findings.filter((finding) => finding.rule === rule.name);
    if (own.length > 0) lines.push("", ...ruleText(own, summary[rule.name] ?? own.length, checked, style));
  }
  if (result.live) lines.push(...liveText(result.live, style));
  const remarks = (checked.remarks ?? []).map(({ message }) => `Note: ${message}`);
  const notes = [...remarks, ...notesOf(result), ...kernelNotes(result.kernel, format)].flatMap((note) =>
    paragraph(note, width),
  );
  if (notes.length > 0) lines.push("", ...notes);
  return `${lines.join("\n")}\n`;
}

/** How much was read, and whether that is all. */
function extent({ format, clock, damage, result, timing }: CheckedTrace): string {
  if (format === LOG) {
    const over = clock === "none" ? "without times" : `over ${duration(result.durationNs)}`;
    return `${plural(result.kernel.messages, "message")} ${over}`;
  }
  const lost = damage ? "the rest is damaged" : lostWords(result.lost);
  const over = (timing?.kind ?? "time") === "time" ? `over ${duration(result.durationNs)}` : "without times";
  return `${plural(result.eventTotal, "event")} ${over}, ${lost}`;
}

/** What was followed: mappings, or what the kernel told. */
function followed({ format, result }: CheckedTrace): string {
  const of = (devices: readonly string[]): string =>
    devices.length === 0 ? "" : ` of ${plural(devices.length, "device")}`;
  if (format === LOG)
    return `${plural(result.kernel.faults, "fault")}${of(result.kernel.devices)} told; a log has no mappings`;
  const failed = result.failed > 0 ? `, ${plural(result.failed, "call")} failed` : "";
  return `${plural(result.mappings, "mapping")}${of(result.devices)} followed, ${count(result.liveAtEnd)} live at the end${failed}`;
}

const nothing = ({ format }: CheckedTrace): string =>
  format === LOG ? "No line of this log tells of a DMA fault, or of another misuse of DMA." : NOTHING_RECORDED;

/** The format of a kernel's log. */
const LOG = "kernel log";

/** How the verdict on one trace stands out: as its worst finding, or as good where it was whole. */
function verdictOf({ damage, result, remarks = [] }: CheckedTrace): Emphasis {
  const worst = SEVERITIES.find((severity) => result.findings.some((finding) => finding.severity === severity));
  return (
    worst ??
    (damage || isEmpty(result) || result.lost !== 0 || result.wentBack > 0 || remarks.length > 0 ? "strong" : "good")
  );
}

/** Behind a headline: that not all of the file went into it. */
const notUnderstood = (remarks: readonly Remark[] = []): string =>
  remarks.some(({ code }) => code === "unknown-line" || code === "unknown-form")
    ? " in what was understood: not all of the file was"
    : "";

/** Nothing was followed and nothing was found. */
export const isEmpty = ({ mappings, failed, ambiguous, unknownStart, findings }: CheckResult): boolean =>
  mappings + failed + ambiguous + unknownStart + findings.length === 0;

/** "2 errors, no warnings, 1 piece of advice". */
export function headline(total: Readonly<Record<Severity, number>>): string {
  const say = (severity: Severity, one: string, many: string): string =>
    `${total[severity] === 0 ? "no" : count(total[severity])} ${total[severity] === 1 ? one : many}`;
  const advice = total.advice === 0 ? "no advice" : say("advice", "piece of advice", "pieces of advice");
  return `${say("error", "error", "errors")}, ${say("warning", "warning", "warnings")}, ${advice}`;
}

function ruleText(
  findings: readonly Finding[],
  total: number,
  { timeBase, clock }: CheckedTrace,
  style: Style,
): string[] {
  const [first] = findings;
  const worst = SEVERITIES.find((severity) => findings.some((finding) => finding.severity === severity))!;
  const lines = [style.paint(worst, `${worst} ${first!.rule}${total > 1 ? ` (${count(total)})` : ""}`)];
  const shown = oneOfEachCaller(findings);
  const callers = callersText(findings);
  if (callers.length > 1) for (const line of callers) lines.push(...paragraph(line, style.width, "  ", "      "));
  for (const finding of shown) lines.push(...findingText(finding, timeBase, style, clock));
  if (total > SHOWN) lines.push(`  ... and ${count(total - SHOWN)} more; --json lists them`);
  // Of faults each may need something else.
  for (const advice of new Set(shown.map((finding) => finding.advice))) {
    const [label, ...rest] = paragraph(`${TO_DO} ${advice}`, style.width, "  ");
    lines.push(label!.replace(TO_DO, style.paint("strong", TO_DO)), ...rest);
  }
  return lines;
}

/** The findings that are printed: one of each calling code first, then more of them, in their order. */
function oneOfEachCaller(findings: readonly Finding[]): readonly Finding[] {
  if (findings.length <= SHOWN) return findings;
  const seen = new Set<string | undefined>();
  const firsts = findings.filter(({ caller }) => !seen.has(caller) && seen.add(caller));
  const chosen = new Set([...firsts, ...findings].slice(0, Math.max(SHOWN, firsts.length)).slice(0, MOST_CALLERS));
  for (const finding of findings) if (chosen.size < SHOWN) chosen.add(finding);
  return findings.filter((finding) => chosen.has(finding));
}

/** How many findings come from which code, most first; empty where no stacks were recorded. */
function callersText(findings: readonly Finding[]): string[] {
  const counts = new Map<string, number>();
  for (const { caller } of findings) if (caller !== undefined) counts.set(caller, (counts.get(caller) ?? 0) + 1);
  return [...counts]
    .sort(([, a], [, b]) => b - a)
    .slice(0, MOST_CALLERS)
    .map(([caller, times]) => `${count(times)} by ${caller}`);
}

/** What happened and the events that show it; `clock` as in {@link CheckedTrace}. */
export function findingText(
  finding: Finding,
  timeBase: bigint,
  { width }: Style = PLAIN,
  clock?: string | undefined,
): string[] {
  const sure = finding.confidence === "certain" ? "" : ` (${finding.confidence})`;
  const lines = paragraph(`- ${finding.message}${sure}`, width, "  ", "    ");
  const rows = finding.evidence.map((event) => placeOf(event, timeBase, clock));
  const widths = [0, 1, 2, 3, 4].map((column) => Math.max(0, ...rows.map((row) => row[column]?.length ?? 0)));
  for (const [i, row] of rows.entries()) {
    const { iova, length, site, text } = finding.evidence[i]!;
    const more = [
      ...(iova === undefined || iova === finding.iova ? [] : [hex(iova)]),
      ...(length === undefined || length === finding.length ? [] : [bytes(length)]),
      ...(site === undefined || site === finding.caller ? [] : [`from ${site}`]),
    ];
    const cells = [...row.map((cell, column) => cell.padEnd(widths[column]!)), ...more];
    lines.push(...inColumns(cells, width, widths[0]! + 6));
    if (text !== undefined) lines.push(...paragraph(text, width, "      | "));
  }
  return lines;
}

/** What it means here, when, on which CPU, in which task, and the event; of a line of a log, which line. */
function placeOf(evidence: Evidence, timeBase: bigint, clock: string | undefined): string[] {
  const { what, event, timeNs, cpu, pid, task, line } = evidence;
  const at = `${secondsOf(timeNs, timeBase).toFixed(6)} s`;
  if (line !== undefined) {
    // A date is told by the line itself; without a clock in common there is no time.
    const timed = timeNs >= 0 && clock !== "wall" && clock !== "none";
    return timed ? [what, at, `line ${count(line)}`] : [what, `line ${count(line)}`];
  }
  if (timeNs < 0) return [what, "before the recording"];
  return [what, at, `CPU ${cpu}`, `${task}-${pid}`, event];
}

/** `cells` side by side; those that do not fit go to a line below, indented. */
function inColumns(cells: readonly string[], width: number, indent: number): string[] {
  const lines = ["   "];
  for (const cell of cells) {
    const line = lines.at(-1)!;
    const gap = line.trim() === "" ? " " : "  ";
    if (line.length + gap.length + cell.trimEnd().length <= width) lines[lines.length - 1] = `${line}${gap}${cell}`;
    else lines.push(`${" ".repeat(indent)}${cell}`);
  }
  return lines.map((line) => line.trimEnd());
}

function notesOf(result: CheckResult): string[] {
  const notes: string[] = [];
  if (result.ambiguous > 0)
    notes.push(
      `${plural(result.ambiguous, "mapping")} ambiguous: no event names the device (two-step without probes, or user space); they are judged only where that needs no device.`,
    );
  if (result.mapsOverLive > 0)
    notes.push(
      `${plural(result.mapsOverLive, "time")} such a mapping was made over a live one: of another device that uses the same address, or an unmap is missing. Probe events tell which (dmalink record --probes).`,
    );
  if (result.endNotRecorded > 0) notes.push(endNotRecordedNote(result.endNotRecorded));
  if (result.wentBack > 0)
    notes.push(
      `Times go back in this file, at ${plural(result.wentBack, "event")}: it holds several recordings one behind the other, or its lines in another order. What rests on the order was not concluded; check each recording by itself.`,
    );
  if (result.lost !== 0)
    notes.push("Events were lost: what would rest on an event that is not there was not concluded.");
  return notes;
}

/** What the kernel's lines held besides the findings: what it kept back, what is not understood, whose clock they are on. */
function kernelNotes({ suppressed, unknown, unkept, clock }: KernelSummary, format: string): string[] {
  const notes: string[] = [];
  for (const [by, lines] of Object.entries(suppressed))
    notes.push(
      `The kernel kept ${plural(lines, "line")} of ${by} back (its rate limit): there were more faults than are told.`,
    );
  if (unknown.count > 0) {
    const [first] = unknown.first;
    const where = first!.line === undefined ? "" : ` (line ${count(first!.line)})`;
    notes.push(
      `${plural(unknown.count, "line")} about an IOMMU ${unknown.count === 1 ? "is" : "are"} not understood; the first${where}: ${first!.text}`,
    );
  }
  if (unkept > 0) notes.push(`${plural(unkept, "line")} of the log told of more than can be kept: not looked at.`);
  if (format === LOG || !clock) return notes;
  if (clock.how === "found")
    notes.push(
      `The log's clock is ${offsetWords(clock.offsetNs)} the trace's, found from ${plural(clock.lines, "line")} in both.`,
    );
  else if (clock.how === "unknown")
    notes.push(
      "The log's times cannot be compared with the trace's: no line is in both. Record printk:console too (dmalink record does), or give the difference with --kernel-log-offset.",
    );
  return notes;
}

const offsetWords = (offsetNs: number): string =>
  `${(Math.abs(offsetNs) / 1e9).toFixed(6)} s ${offsetNs >= 0 ? "behind" : "ahead of"}`;
