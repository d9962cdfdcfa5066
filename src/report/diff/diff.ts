/**
 * Two traces of one load, before and after a change: what is more, what is less, which findings came and went.
 *
 * Idea: first it is asked whether the two can be compared at all: another mix of sizes or devices, or events that only one of them
 * has, make every number per request one of two different things. What the machine did otherwise (strict, lazy) is no such reason:
 * it may be the change. Findings are the same if rule, device and whoever began it are; addresses differ in every run.
 * Promises: nothing is a regression that the recordings cannot carry; such a measure is said not to be judged.
 */
import { type Finding, RULES, SEVERITIES, type Severity } from "../../analysis/index.ts";
import { count } from "../../base/index.ts";
import { MEASURES, type Measure, measuredIn } from "./measures.ts";
import type { TraceSide } from "./trace-side.ts";

/** A measure in both. */
export interface MeasuredChange {
  /** What was measured. */
  readonly measure: Measure;
  /** Before the change; undefined: the recording does not show it. */
  readonly before: number | undefined;
  /** After it; undefined: the recording does not show it. */
  readonly after: number | undefined;
  /** after / before - 1; `undefined`: one of them is not shown, or before is 0. */
  readonly change: number | undefined;
}

/** Findings of one rule, about one device and by one place in the code or one task. */
export interface FindingChange {
  /** Which rule found them. */
  readonly rule: string;
  /** How bad they are. */
  readonly severity: Severity;
  /** Which device they are about; undefined: none in particular. */
  readonly device: string | undefined;
  /** Who began it: a place in the code where the events name one, else a task; `undefined`: nothing says. */
  readonly by: string | undefined;
  /** How many before the change. */
  readonly before: number;
  /** How many after it. */
  readonly after: number;
  /** One of them, of `after` where there is one. */
  readonly example: Finding;
}

/** What is a regression: a measure or a kind of finding, and how much more of it is allowed. */
export interface FailOn {
  /** Of a measure, or of a rule. */
  readonly name: string;
  /** 0.1: ten percent more. */
  readonly allowed: number;
}

/** A named one that got worse, or that cannot be judged. */
export interface Regression {
  /** Of the measure or the rule. */
  readonly name: string;
  /** How much worse it is, or why that cannot be said. */
  readonly message: string;
}

/** What is said of two traces. */
export interface TraceDiff {
  /** The trace from before the change. */
  readonly before: TraceSide;
  /** The trace from after it. */
  readonly after: TraceSide;
  /** Why numbers per request are not of one load; none: they are. */
  readonly incomparable: readonly string[];
  /** What the machine did otherwise. */
  readonly otherwise: readonly string[];
  /** Every measure, in the order of reports. */
  readonly measures: readonly MeasuredChange[];
  /** Kinds of findings that either has. */
  readonly findings: readonly FindingChange[];
  /** What got worse by more than is allowed. */
  readonly regressions: readonly Regression[];
  /** Asked about, and not judged. */
  readonly unjudged: readonly Regression[];
}

/** Below this share of requests a size or a device is not a part of the load. */
const PART = 0.02;
/** So much of the requests may be of another size, kind or device. */
const ALIKE = 0.2;
/** With fewer requests shares say little. */
const FEW = 50;

/** Names that --fail-on takes besides rules and measures. */
const FINDING_GROUPS = ["errors", "warnings", "advice", "findings"] as const;

/** Every name that --fail-on takes. */
export const FAIL_ON_NAMES: readonly string[] = [
  ...FINDING_GROUPS,
  ...MEASURES.filter(({ worse }) => worse).map(({ name }) => name),
  ...RULES.map(({ name }) => name),
];

/** Holds `after` against `before`. */
export function diffTraces(before: TraceSide, after: TraceSide, failOn: readonly FailOn[] = []): TraceDiff {
  const incomparable = reasons(before, after);
  const measures = MEASURES.map((measure): MeasuredChange => {
    const [was, is] = [measuredIn(measure, before), measuredIn(measure, after)];
    return {
      measure,
      before: was,
      after: is,
      change: was === undefined || is === undefined || was === 0 ? undefined : is / was - 1,
    };
  });
  const findings = findingChanges(before, after);
  const regressions: Regression[] = [];
  const unjudged: Regression[] = [];
  for (const one of failOn) {
    const measured = measures.find(({ measure }) => measure.name === one.name);
    const judged = measured
      ? judgeMeasure(measured, one, incomparable.length > 0)
      : judgeFindings(one, before, after, findings);
    if (judged) (judged.isWorse ? regressions : unjudged).push({ name: one.name, message: judged.message });
  }
  return {
    before,
    after,
    incomparable,
    otherwise: machineChanges(before, after),
    measures,
    findings,
    regressions,
    unjudged,
  };
}

interface Judged {
  readonly isWorse: boolean;
  readonly message: string;
}

function judgeMeasure(
  { measure, before, after }: MeasuredChange,
  { allowed }: FailOn,
  isIncomparable: boolean,
): Judged | undefined {
  const { name, meaning } = measure;
  if (isIncomparable) return { isWorse: false, message: `${name}: the loads are not comparable` };
  if (before === undefined && after === undefined)
    return { isWorse: false, message: `${name}: neither trace shows it` };
  if (before === undefined || after === undefined)
    return { isWorse: false, message: `${name}: only the trace ${before === undefined ? "after" : "before"} shows it` };
  if (after <= before * (1 + allowed)) return undefined;
  const more = before === 0 ? "from none" : `${((after / before - 1) * 100).toFixed(1)} % more`;
  return { isWorse: true, message: `${name}: ${meaning}, ${more}, ${(allowed * 100).toFixed(0)} % are allowed` };
}

function judgeFindings(
  { name, allowed }: FailOn,
  before: TraceSide,
  after: TraceSide,
  findings: readonly FindingChange[],
): Judged | undefined {
  const has = (finding: { readonly severity: Severity; readonly rule: string }): boolean =>
    name === "findings" || name === finding.rule || name === groupOf(finding.severity);
  const fresh = findings.filter((one) => has(one) && one.before === 0);
  const sum = ({ result }: TraceSide): number => {
    const severity = SEVERITIES.find((one) => groupOf(one) === name);
    if (severity) return result.severities[severity];
    if (name === "findings") return Object.values(result.severities).reduce((all, n) => all + n, 0);
    return result.summary[name] ?? 0;
  };
  const [was, is] = [sum(before), sum(after)];
  const rate = (n: number, { total }: TraceSide): number => n / Math.max(total.maps, 1);
  const more = is > was && rate(is, after) > rate(was, before) * (1 + allowed);
  if (fresh.length === 0 && !more) return undefined;
  const kinds = fresh.length > 0 ? `, ${count(fresh.length)} of a kind that was not there before` : "";
  return { isWorse: true, message: `${name}: ${count(was)} before, ${count(is)} after${kinds}` };
}

const groupOf = (severity: Severity): string => (severity === "advice" ? severity : `${severity}s`);

/** Why the numbers of the two are not of one load. */
function reasons(before: TraceSide, after: TraceSide): string[] {
  const empty = [before, after].filter(({ total }) => total.maps === 0).map(({ file }) => `${file} has no mapping`);
  if (empty.length > 0) return empty;
  const found: string[] = [];
  const few = [before, after].filter(({ total }) => total.maps < FEW);
  for (const { file, total } of few) found.push(`${file} has ${count(total.maps)} requests only`);
  const onlyIn = (a: TraceSide, b: TraceSide, which: string): void => {
    for (const { name, maps } of a.devices)
      if (maps > a.total.maps * PART && !b.devices.some((device) => device.name === name && device.maps > 0))
        found.push(`${name === "unknown" ? "what names no device" : name} is in the trace ${which} only`);
    const others = new Set(Object.keys(b.result.events).map(newName));
    for (const [event, n] of Object.entries(a.result.events))
      if (SHAPING.test(event) && n > a.result.eventTotal * PART && !others.has(newName(event)))
        found.push(`the event ${event} is in the trace ${which} only`);
  };
  onlyIn(before, after, "before");
  onlyIn(after, before, "after");
  const sizes = distance(before.total.requestSizes, after.total.requestSizes);
  if (sizes > ALIKE) found.push(`${percent(sizes)} of the requests are of other sizes`);
  const devices = distance(sharesOf(before), sharesOf(after));
  if (devices > ALIKE) found.push(`${percent(devices)} of the requests are of other devices`);
  for (const [side, which] of [
    [before, "before"],
    [after, "after"],
  ] as const) {
    if (side.damage) found.push(`the trace ${which} is damaged`);
    if (side.result.lost !== 0) found.push(`events of the trace ${which} were lost`);
  }
  return found;
}

/** Events that make the difference between what two recordings can show. */
const SHAPING = /^(un)?map$|^dma_(un)?map_|^dma_iova_|^swiotlb_/;

/** Linux 6.18 renamed what maps a page. */
const newName = (event: string): string => event.replace(/^(dma_(?:un)?map)_page$/, "$1_phys");

const sharesOf = ({ devices }: TraceSide): Record<string, number> =>
  Object.fromEntries(devices.map(({ name, maps }) => [name, maps]));

/** The share of all that would have to be of another kind for the two to be alike, 0 to 1. */
function distance(a: Readonly<Record<string, number>>, b: Readonly<Record<string, number>>): number {
  const sum = (counts: Readonly<Record<string, number>>): number =>
    Math.max(
      1,
      Object.values(counts).reduce((all, n) => all + n, 0),
    );
  const [ofA, ofB] = [sum(a), sum(b)];
  const names = new Set([...Object.keys(a), ...Object.keys(b)]);
  let apart = 0;
  for (const name of names) apart += Math.abs((a[name] ?? 0) / ofA - (b[name] ?? 0) / ofB);
  return apart / 2;
}

const percent = (share: number): string => `${Math.round(share * 100)} %`;

/** What the machine did otherwise. */
function machineChanges({ machine: a }: TraceSide, { machine: b }: TraceSide): string[] {
  const changes: string[] = [];
  const say = (what: string, was: string | undefined, is: string | undefined): void => {
    if (was !== is && was !== undefined && is !== undefined) changes.push(`${what}: ${was} before, ${is} after`);
  };
  say("memory is reached", a.reached, b.reached);
  say("invalidation", a.mode, b.mode);
  say("caching mode", a.cachingMode ? "on" : "off", b.cachingMode ? "on" : "off");
  say("most is mapped by", a.mostly, b.mostly);
  return changes;
}

/** Findings of both, those that are worst and came first. */
function findingChanges(before: TraceSide, after: TraceSide): FindingChange[] {
  const found = new Map<string, { -readonly [Name in keyof FindingChange]: FindingChange[Name] }>();
  for (const [side, at] of [
    [before, "before"],
    [after, "after"],
  ] as const)
    for (const finding of side.result.findings) {
      const { rule, severity, device } = finding;
      const by = whoBegan(finding);
      const key = JSON.stringify([rule, severity, device, by]);
      const change = found.get(key) ?? { rule, severity, device, by, before: 0, after: 0, example: finding };
      change[at]++;
      if (at === "after" && change.after === 1) change.example = finding;
      found.set(key, change);
    }
  const news = ({ before, after }: FindingChange): number => (before === 0 ? 0 : after === 0 ? 2 : 1);
  const gravity = ({ severity }: FindingChange): number => SEVERITIES.indexOf(severity);
  return [...found.values()].sort((a, b) => news(a) - news(b) || gravity(a) - gravity(b) || b.after - a.after);
}

function whoBegan({ evidence }: Finding): string | undefined {
  const [first] = evidence;
  return first && (first.site ?? (first.task === "" ? undefined : first.task));
}
