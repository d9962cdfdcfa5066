/** Two traces held against each other, for people: whether they can be, then what is more and what is less, then what is wrong. */
import { bytes, count, duration, plural } from "../../base/index.ts";
import { PLAIN, type Style } from "../text/style.ts";
import { paragraph, textTable } from "../text/text-table.ts";
import { lostWords, selectionWords } from "../wording.ts";
import type { FindingChange, MeasuredChange, TraceDiff } from "./diff.ts";
import type { TraceSide } from "./trace-side.ts";

/** Findings that are told one by one; the others are counted. */
const SHOWN = 10;

/** The whole answer. */
export function diffText(
  diff: TraceDiff,
  style: Style = PLAIN,
  selection?: Parameters<typeof selectionWords>[0],
): string {
  const { before, after, incomparable, otherwise, measures, findings, regressions, unjudged } = diff;
  const { width, paint } = style;
  const selected = selectionWords(selection);
  const lines = [
    ...paragraph(sideLine(before), width, "before  ", "        "),
    ...paragraph(sideLine(after), width, "after   ", "        "),
    ...(selected === "" ? [] : paragraph(selected, width)),
    "",
    ...comparable(incomparable, style),
    ...otherwise.flatMap((change) => paragraph(change, width)),
    "",
    textTable(["", "before", "after", "change"], measures.filter(isShown).map(measureRow)),
    "",
    ...findingLines(findings, style),
  ];
  if (unjudged.length > 0)
    lines.push("", ...unjudged.flatMap(({ message }) => paragraph(`not judged: ${message}`, width)));
  if (regressions.length > 0)
    lines.push(
      "",
      ...regressions.flatMap(({ message }) =>
        paragraph(`regression: ${message}`, width).map((line) => paint("error", line)),
      ),
    );
  return `${lines.join("\n")}\n`;
}

const sideLine = ({ file, format, result, damage }: TraceSide): string =>
  `${file}: ${format}, ${plural(result.eventTotal, "event")} over ${duration(result.durationNs)}, ${damage ? "the rest is lost" : lostWords(result.lost)}`;

function comparable(incomparable: readonly string[], { width, paint }: Style): string[] {
  if (incomparable.length === 0)
    return [paint("good", "The loads are comparable: numbers per request are of the same work.")];
  const said = `The loads are not comparable, so numbers per request say little: ${incomparable.join("; ")}.`;
  return paragraph(said, width).map((line) => paint("warning", line));
}

const isShown = ({ before, after }: MeasuredChange): boolean => before !== undefined || after !== undefined;

function measureRow({ measure, before, after, change }: MeasuredChange): string[] {
  const say = (value: number | undefined): string => {
    if (value === undefined) return "-";
    if (measure.unit === "bytes") return bytes(Math.round(value));
    if (measure.unit === "ns") return duration(value);
    return measure.perRequest ? value.toFixed(2) : count(value);
  };
  const moved =
    change === undefined
      ? before === after
        ? "="
        : "-"
      : Math.abs(change) < 0.0005
        ? "="
        : `${change > 0 ? "+" : ""}${(change * 100).toFixed(1)} %`;
  return [measure.meaning, say(before), say(after), moved];
}

function findingLines(findings: readonly FindingChange[], style: Style): string[] {
  const { width, paint } = style;
  const fresh = findings.filter(({ before }) => before === 0);
  const gone = findings.filter(({ after }) => after === 0);
  const more = findings.filter(({ before, after }) => before > 0 && after > 0 && before !== after);
  const same = findings.length - fresh.length - gone.length - more.length;
  if (findings.length === 0) return [paint("good", "No findings before, none after.")];
  const lines = [
    paint(
      "strong",
      `findings: ${count(fresh.length)} new, ${count(gone.length)} gone, ${count(more.length)} changed, ${count(same)} as before`,
    ),
  ];
  for (const change of fresh.slice(0, SHOWN)) {
    lines.push(paint(change.severity, `+ ${nameOf(change)}: ${count(change.after)}`));
    lines.push(...paragraph(change.example.message, width, "    "));
  }
  if (fresh.length > SHOWN) lines.push(`+ ... and ${count(fresh.length - SHOWN)} more; --json lists them`);
  for (const change of gone.slice(0, SHOWN))
    lines.push(paint("good", `- ${nameOf(change)}: was ${count(change.before)}`));
  if (gone.length > SHOWN) lines.push(`- ... and ${count(gone.length - SHOWN)} more; --json lists them`);
  for (const change of more.slice(0, SHOWN))
    lines.push(`  ${nameOf(change)}: ${count(change.before)} before, ${count(change.after)} after`);
  if (more.length > SHOWN) lines.push(`  ... and ${count(more.length - SHOWN)} more; --json lists them`);
  return lines;
}

const nameOf = ({ severity, rule, device, by }: FindingChange): string =>
  `${severity} ${rule}${device === undefined ? "" : ` of ${device}`}${by === undefined ? "" : `, by ${by}`}`;
