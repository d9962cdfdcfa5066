/**
 * Checks of several traces as one answer, for people.
 *
 * Idea: a line a trace in the order they were asked for, then what is wrong in each. Promises: a trace that could not be read
 * is a line too, so that nothing looks clean that was not looked at.
 */
import { RULES, SEVERITIES, type Severity } from "../../analysis/index.ts";
import { count, plural } from "../../base/index.ts";
import { PLAIN, type Style } from "../text/style.ts";
import { textTable } from "../text/text-table.ts";
import { NOTHING_RECORDED } from "../wording.ts";
import { type CheckedTrace, checkText, headline, isEmpty } from "./check-text.ts";

/** A file that could not be read at all. */
export interface UnreadFile {
  /** As it was named. */
  readonly file: string;
  /** Why not. */
  readonly message: string;
}

/** What came of one trace. */
export type CheckOutcome = CheckedTrace | UnreadFile;

/** Longest name of a trace in the table; of a longer one the end is shown. */
const NAME_WIDTH = 40;

/** The traces that could be read. */
export const checkedOf = (outcomes: readonly CheckOutcome[]): CheckedTrace[] =>
  outcomes.filter((outcome) => "result" in outcome);

/** The traces that could not. */
export const unreadOf = (outcomes: readonly CheckOutcome[]): UnreadFile[] =>
  outcomes.filter((outcome): outcome is UnreadFile => !("result" in outcome));

/** Findings of each rule in all traces together. */
export function summaryOf(checked: readonly CheckedTrace[]): Record<string, number> {
  const summary: Record<string, number> = {};
  for (const { name } of RULES) {
    const sum = checked.reduce((all, { result }) => all + (result.summary[name] ?? 0), 0);
    if (sum > 0) summary[name] = sum;
  }
  return summary;
}

/** For people. */
export function checkSetText(outcomes: readonly CheckOutcome[], style: Style = PLAIN): string {
  const checked = checkedOf(outcomes);
  const lines = [style.paint("strong", heading(outcomes, checked)), "", table(outcomes), ""];
  const advised = checked.find((one) => !isWrong(one) && one.result.findings.length > 0);
  if (advised) lines.push(`Advice alone is told by the check of one trace: dmalink check ${advised.file}`, "");
  const wrong = checked.filter(isWrong);
  return `${lines.join("\n")}\n${wrong.map((one) => `${checkText(one, style)}\n`).join("")}`.trimEnd().concat("\n");
}

const isWrong = ({ result }: CheckedTrace): boolean => result.findings.some(({ severity }) => severity !== "advice");

function heading(outcomes: readonly CheckOutcome[], checked: readonly CheckedTrace[]): string {
  const [unread, damaged] = [outcomes.length - checked.length, checked.filter(({ damage }) => damage).length];
  const lacks = [
    ...(unread > 0 ? [`${count(unread)} not read`] : []),
    ...(damaged > 0 ? [`${count(damaged)} damaged`] : []),
  ];
  const what = `${plural(outcomes.length, "trace")}${lacks.length > 0 ? ` (${lacks.join(", ")})` : ""}`;
  if (checked.length === 0) return `${what}: nothing was judged`;
  const events = checked.reduce((sum, { result }) => sum + result.eventTotal, 0);
  const total = (severity: Severity): number =>
    checked.reduce((sum, { result }) => sum + result.severities[severity], 0);
  const verdict = checked.every(({ result }) => isEmpty(result))
    ? NOTHING_RECORDED
    : headline({ error: total("error"), warning: total("warning"), advice: total("advice") });
  return `${what}, ${plural(events, "event")}: ${verdict}`;
}

function table(outcomes: readonly CheckOutcome[]): string {
  return textTable(
    ["trace", "events", "errors", "warnings", "advice"],
    outcomes.map((outcome) => {
      const { file } = outcome;
      const name = file.length > NAME_WIDTH ? `...${file.slice(3 - NAME_WIDTH)}` : file;
      if (!("result" in outcome)) return [name, "not read", "-", "-", "-"];
      const { result, damage } = outcome;
      const severities = SEVERITIES.map((severity) => count(result.severities[severity]));
      const marks = [...(damage ? ["damaged"] : []), ...(isEmpty(result) ? ["no mapping"] : [])];
      return [marks.length > 0 ? `${name} (${marks.join(", ")})` : name, count(result.eventTotal), ...severities];
    }),
  );
}
