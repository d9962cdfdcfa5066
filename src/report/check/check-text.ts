/** A check for people: what is wrong, where, and what to do, in lines that fit. */
import {
  type CheckResult,
  type Evidence,
  type Finding,
  RULES,
  SEVERITIES,
  type Severity,
} from "../../analysis/index.ts";
import { bytes, count, duration, hex, plural } from "../../base/index.ts";
import type { Remark, Timing } from "../../trace/index.ts";
import { type Emphasis, PLAIN, type Style } from "../text/style.ts";
import { paragraph } from "../text/text-table.ts";
import { endUnsaidNote, lostWords, NOTHING_RECORDED } from "../wording.ts";
import { secondsOf } from "./check-json.ts";

/** Findings of one rule that are printed; the others are counted. */
const SHOWN = 5;
const TO_DO = "What to do:";

/** What is needed of a trace after it is closed. */
export interface CheckedTrace {
  readonly file: string;
  readonly format: string;
  readonly timeBase: bigint;
  readonly damage: { readonly message: string } | undefined;
  /** What was not understood, and what the stamps are; a verdict never stands without it. */
  readonly remarks?: readonly Remark[];
  readonly timing?: Timing;
  readonly result: CheckResult;
}

/** The whole answer for one file. */
export function checkText(checked: CheckedTrace, style: Style = PLAIN): string {
  const { width } = style;
  const { file, format, damage, result } = checked;
  const { findings, summary } = result;
  const lost = damage ? "the rest is damaged" : lostWords(result.lost);
  const isTimed = (checked.timing?.kind ?? "time") === "time";
  const lines = [
    ...paragraph(
      `${file}: ${format}, ${plural(result.eventTotal, "event")}${isTimed ? ` over ${duration(result.durationNs)}` : " without times"}, ${lost}`,
      width,
    ),
    ...paragraph(
      `${plural(result.mappings, "mapping")}${result.devices.length === 0 ? "" : ` of ${plural(result.devices.length, "device")}`} followed, ${count(result.liveAtEnd)} live at the end`,
      width,
    ),
    ...paragraph(
      isEmpty(result) ? NOTHING_RECORDED : `${headline(findings, summary)}${notUnderstood(checked.remarks)}`,
      width,
    ).map((line) => style.paint(verdictOf(checked), line)),
  ];
  for (const rule of RULES) {
    const own = findings.filter((finding) => finding.rule === rule.name);
    if (own.length > 0) lines.push("", ...ruleText(own, summary[rule.name] ?? own.length, checked.timeBase, style));
  }
  const remarks = (checked.remarks ?? []).flatMap(({ message }) => paragraph(`Note: ${message}`, width));
  const notes = [...remarks, ...notesOf(result, style)];
  if (notes.length > 0) lines.push("", ...notes);
  return `${lines.join("\n")}\n`;
}

/** How the verdict on one trace stands out: as its worst finding, or as good where it was whole. */
function verdictOf({ damage, result, remarks = [] }: CheckedTrace): Emphasis {
  const worst = SEVERITIES.find((severity) => result.findings.some((finding) => finding.severity === severity));
  return worst ?? (damage || isEmpty(result) || result.lost !== 0 || remarks.length > 0 ? "strong" : "good");
}

/** Behind a headline: that not all of the file went into it. */
const notUnderstood = (remarks: readonly Remark[] = []): string =>
  remarks.some(({ code }) => code === "unknown-line" || code === "unknown-form")
    ? " in what was understood: not all of the file was"
    : "";

/** Nothing was followed and nothing was found. */
export const isEmpty = ({ mappings, ambiguous, unknownStart, findings }: CheckResult): boolean =>
  mappings + ambiguous + unknownStart + findings.length === 0;

/** "2 errors, no warnings, 1 piece of advice". */
export function headline(findings: readonly Finding[], summary: Readonly<Record<string, number>>): string {
  const total: Record<Severity, number> = { error: 0, warning: 0, advice: 0 };
  for (const { severity } of findings) total[severity]++;
  // What was counted but not kept has the severity of its rule.
  for (const { name, severity } of RULES)
    total[severity] += (summary[name] ?? 0) - findings.filter((finding) => finding.rule === name).length;
  const say = (severity: Severity, one: string, many: string): string =>
    `${total[severity] === 0 ? "no" : count(total[severity])} ${total[severity] === 1 ? one : many}`;
  const advice = total.advice === 0 ? "no advice" : say("advice", "piece of advice", "pieces of advice");
  return `${say("error", "error", "errors")}, ${say("warning", "warning", "warnings")}, ${advice}`;
}

function ruleText(findings: readonly Finding[], total: number, timeBase: bigint, style: Style): string[] {
  const [first] = findings;
  const worst = SEVERITIES.find((severity) => findings.some((finding) => finding.severity === severity))!;
  const lines = [style.paint(worst, `${worst} ${first!.rule}${total > 1 ? ` (${count(total)})` : ""}`)];
  for (const finding of findings.slice(0, SHOWN)) lines.push(...findingText(finding, timeBase, style));
  if (total > SHOWN) lines.push(`  ... and ${count(total - SHOWN)} more; --json lists them`);
  const [label, ...rest] = paragraph(`${TO_DO} ${first!.advice}`, style.width, "  ");
  lines.push(label!.replace(TO_DO, style.paint("strong", TO_DO)), ...rest);
  return lines;
}

/** What happened and the events that show it. */
export function findingText(finding: Finding, timeBase: bigint, { width }: Style = PLAIN): string[] {
  const sure = finding.confidence === "certain" ? "" : ` (${finding.confidence})`;
  const lines = paragraph(`- ${finding.message}${sure}`, width, "  ", "    ");
  const rows = finding.evidence.map((event) => placeOf(event, timeBase));
  const widths = [0, 1, 2, 3, 4].map((column) => Math.max(0, ...rows.map((row) => row[column]?.length ?? 0)));
  for (const [i, row] of rows.entries()) {
    const { iova, length, site } = finding.evidence[i]!;
    const more = [
      ...(iova === undefined || iova === finding.iova ? [] : [hex(iova)]),
      ...(length === undefined || length === finding.length ? [] : [bytes(length)]),
      ...(site === undefined ? [] : [`from ${site}`]),
    ];
    const cells = [...row.map((cell, column) => cell.padEnd(widths[column]!)), ...more];
    lines.push(...inColumns(cells, width, widths[0]! + 6));
  }
  return lines;
}

/** What it means here, when, on which CPU, in which task, and the event. */
function placeOf({ what, event, timeNs, cpu, pid, task }: Evidence, timeBase: bigint): string[] {
  if (timeNs < 0) return [what, "before the recording"];
  return [what, `${secondsOf(timeNs, timeBase).toFixed(6)} s`, `CPU ${cpu}`, `${task}-${pid}`, event];
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

function notesOf(result: CheckResult, { width }: Style): string[] {
  const notes: string[] = [];
  if (result.ambiguous > 0)
    notes.push(
      `${plural(result.ambiguous, "mapping")} ambiguous: no event names the device (two-step without probes, or user space); they are judged only where that needs no device.`,
    );
  if (result.mapsOverLive > 0)
    notes.push(
      `${plural(result.mapsOverLive, "time")} such a mapping was made over a live one: of another device that uses the same address, or an unmap is missing. Probe events tell which (dmalink record --probes).`,
    );
  if (result.endUnsaid > 0) notes.push(endUnsaidNote(result.endUnsaid));
  if (result.lost !== 0)
    notes.push("Events were lost: what would rest on an event that is not there was not concluded.");
  return notes.flatMap((note) => paragraph(note, width));
}
