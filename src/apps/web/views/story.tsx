/**
 * The story of a finding as a picture: what happened to the address, step by step, and how long it took from one step to the next.
 *
 * Idea: steps stand at equal distances, since a story of 3 µs, 2 µs and 40 ms has no scale that shows all three; the times stand between
 * them. A bar below shows from where to where the address was mapped. The table of evidence says the same in words.
 */
import type { VNode } from "preact";
import type { Evidence, Finding } from "../../../analysis/index.ts";
import { duration, hex } from "../../../base/index.ts";
import type { Session } from "../frame/session.ts";
import { stampOf } from "../frame/time-axis.ts";

interface Step {
  readonly what: string;
  readonly timeNs: number;
  readonly who: string;
  readonly kind: "map" | "unmap" | "sync" | "flush" | "fault" | "other";
}

/** Steps of a story at the most; what lies between the first and the last ones is counted. */
const MOST_STEPS = 9;
const STEP_PX = 148;

const KIND: readonly [RegExp, Step["kind"]][] = [
  [/fault/i, "fault"],
  [/unmap|free|unlink|given back|ended/i, "unmap"],
  [/flush|invalidat/i, "flush"],
  [/sync/i, "sync"],
  [/map|link|alloc|reserve|bounc/i, "map"],
];

const stepOf = (evidence: Evidence, fault: boolean): Step => ({
  what: evidence.what,
  timeNs: evidence.timeNs,
  who: evidence.task === "" ? evidence.event : `${evidence.task}-${evidence.pid}, CPU ${evidence.cpu}`,
  kind: fault ? "fault" : (KIND.find(([words]) => words.test(`${evidence.what} ${evidence.event}`))?.[1] ?? "other"),
});

/** Its steps in the order of time. */
function stepsOf({ evidence, fault }: Finding): Step[] {
  const steps = evidence.map((each) =>
    stepOf(each, fault !== undefined && /fault/i.test(`${each.what} ${each.event}`)),
  );
  return steps.sort((a, b) => a.timeNs - b.timeNs);
}

export function Story({ finding }: { readonly session: Session; readonly finding: Finding }): VNode | null {
  const all = stepsOf(finding);
  if (all.length < 2) return null;
  const left = all.length > MOST_STEPS ? all.length - MOST_STEPS : 0;
  const steps = left > 0 ? [...all.slice(0, MOST_STEPS - 2), ...all.slice(-2)] : all;
  const width = Math.max(steps.length * STEP_PX, 300);
  const xOf = (i: number): number => STEP_PX / 2 + i * STEP_PX;
  return (
    <section>
      <h2>The story of {finding.iova === undefined ? "it" : <span class="mono">{hex(finding.iova)}</span>}</h2>
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: it scrolls where the screen is small */}
      <section class="story" tabIndex={0} aria-label="the story, scrollable">
        <svg width={width} height="126" viewBox={`0 0 ${width} 126`} role="img" aria-label={inWords(steps)}>
          <Mapped steps={steps} xOf={xOf} width={width} />
          <line x1={0} x2={width} y1={52} y2={52} class="axis" />
          {steps.map((step, i) => (
            <g key={`${step.timeNs} ${step.what} ${step.who}`} transform={`translate(${xOf(i)} 0)`}>
              <Sign kind={step.kind} />
              <text y={30} class="what">
                {short(step.what)}
              </text>
              <text y={84} class="when">
                {step.timeNs < 0 ? "before" : `${stampOf(step.timeNs, 1000)} s`}
              </text>
              <text y={100} class="who">
                {short(step.who)}
              </text>
              {i === 0 || step.timeNs < 0 || steps[i - 1]!.timeNs < 0 ? null : (
                <text x={-STEP_PX / 2} y={68} class="gap">
                  {duration(step.timeNs - steps[i - 1]!.timeNs)}
                </text>
              )}
            </g>
          ))}
        </svg>
      </section>
      {left > 0 ? <p class="quiet small">{left} steps between are in the table only.</p> : null}
    </section>
  );
}

const short = (text: string): string => (text.length > 24 ? `${text.slice(0, 23)}…` : text);

/** While it was mapped. */
function Mapped({
  steps,
  xOf,
  width,
}: {
  readonly steps: readonly Step[];
  xOf(i: number): number;
  readonly width: number;
}): VNode {
  const bars: VNode[] = [];
  let from: number | undefined;
  for (const [i, { kind }] of steps.entries()) {
    if (kind === "map") from ??= xOf(i);
    if (kind !== "unmap" || from === undefined) continue;
    bars.push(<rect key={i} x={from} y={44} width={xOf(i) - from} height={16} class="mapped" />);
    from = undefined;
  }
  if (from !== undefined)
    bars.push(<rect key="last" x={from} y={44} width={width - from} height={16} class="mapped" />);
  return <g>{bars}</g>;
}

/** A sign a kind of step: told apart by form, too. */
function Sign({ kind }: { readonly kind: Step["kind"] }): VNode {
  if (kind === "fault") return <path d="M0 42 L10 60 L-10 60 Z" class="sign fault" />;
  if (kind === "unmap") return <rect x={-6} y={46} width={12} height={12} class="sign unmap" />;
  if (kind === "flush") return <path d="M0 44 L8 52 L0 60 L-8 52 Z" class="sign flush" />;
  return <circle cy={52} r={kind === "sync" ? 5 : 7} class={`sign ${kind}`} />;
}

const inWords = (steps: readonly Step[]): string =>
  steps
    .map(
      ({ what, timeNs, who }) =>
        `${what}${timeNs < 0 ? " before the recording" : ` at ${stampOf(timeNs)} s`} by ${who}`,
    )
    .join("; ");
