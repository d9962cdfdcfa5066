/**
 * `dmalink sim`: whole machines from seeds, run until a promise of the stack breaks.
 *
 * Text: one line if all was well; for each seed that failed the line that repeats it, and its shortest story.
 * JSON: dmalink.sim/1.
 */
import {
  SCENARIOS,
  type Scenario,
  type SimulationPlan,
  shortestStory,
  type Violation,
} from "../../simulation/index.ts";
import { TraceRecorder } from "../../trace/index.ts";
import { type Output, Outputs, writeOutput } from "./output.ts";
import { progressLine } from "./progress.ts";
import { Restore } from "./restore.ts";
import { print } from "./terminal.ts";

export interface SimOptions {
  /** Name of the scenario. */
  readonly scenario: string;
  /** Inclusive; with `minutes` the last one does not count. */
  readonly first: number;
  readonly last: number;
  readonly minutes?: number;
  /** Where the recording of the one seed goes. */
  readonly traceFile?: string;
  readonly json: boolean;
}

interface Failure {
  readonly seed: number;
  readonly violation: Violation;
  readonly plan: SimulationPlan;
  readonly steps: number;
}

/** Failures that are told; all are counted. */
const TOLD = 10;

export async function sim(options: SimOptions): Promise<number> {
  const restore = new Restore();
  const trace =
    options.traceFile === undefined
      ? undefined
      : new Outputs(restore, [], options.json).claim("--trace", options.traceFile);
  try {
    return await run(options, trace);
  } finally {
    restore.run();
  }
}

async function run(options: SimOptions, trace: Output | undefined): Promise<number> {
  const { first, minutes } = options;
  const scenario = SCENARIOS[options.scenario]!;
  const progress = progressLine();
  const until = minutes === undefined ? undefined : performance.now() + minutes * 60_000;
  const failures: Failure[] = [];
  let [seeds, events, bytes, failed] = [0, 0, 0, 0];
  for (let seed = first; until === undefined ? seed <= options.last : performance.now() < until; seed++) {
    const plan = scenario.plan(seed);
    const recorder = trace && new TraceRecorder();
    const result = await scenario.run(plan, { ...(recorder && { observer: recorder }) });
    if (trace && recorder) writeOutput(trace, (emit) => emit(recorder.dat()));
    seeds++;
    events += result.events;
    bytes += result.bytesMoved;
    if (result.violation) {
      failed++;
      if (failures.length < TOLD) failures.push(await shortest(scenario, plan));
    }
    if (seeds % 16 === 0) progress.say(`seed ${seed}: ${seeds} machines, ${failed} failed`);
  }
  progress.done();
  if (options.json) {
    const document = {
      schema: "dmalink.sim/1",
      scenario: scenario.name,
      seeds,
      events,
      bytesMoved: bytes,
      failed,
      failures: failures.map(({ seed, violation, plan }) => ({
        seed,
        oracle: violation.oracle,
        message: violation.message,
        repeat: repeatLine(scenario, seed),
        machine: scenario.machineInWords(plan.config),
        story: plan.steps.map((step) => scenario.stepInWords(step)),
      })),
    };
    print(`${JSON.stringify(document, null, 2)}\n`);
  } else print(text(scenario, { seeds, events, bytes, failed }, failures));
  return failed === 0 ? 0 : 1;
}

async function shortest(scenario: Scenario, plan: SimulationPlan): Promise<Failure> {
  const { plan: cut, result } = await shortestStory(scenario, plan);
  return { seed: plan.seed, violation: result.violation!, plan: cut, steps: plan.steps.length };
}

function text(
  scenario: Scenario,
  { seeds, events, bytes, failed }: { seeds: number; events: number; bytes: number; failed: number },
  failures: readonly Failure[],
): string {
  const lines = [
    `${seeds.toLocaleString("en")} machine${seeds === 1 ? "" : "s"}, ${events.toLocaleString("en")} steps, ` +
      `${(bytes / 2 ** 20).toFixed(1)} MiB moved by devices: ` +
      (failed === 0 ? "every promise kept" : `${failed} broke a promise`),
  ];
  for (const { seed, violation, plan, steps } of failures) {
    lines.push("", `seed ${seed} (${violation.oracle}): ${violation.message}`);
    lines.push(`  machine: ${scenario.machineInWords(plan.config)}`);
    lines.push(`  repeat:  ${repeatLine(scenario, seed)}`);
    lines.push(`  story, ${plan.steps.length} of ${steps} steps:`);
    plan.steps.forEach((step, i) => {
      lines.push(`    ${String(i + 1).padStart(2)}. ${scenario.stepInWords(step)}`);
    });
  }
  if (failed > failures.length) lines.push("", `and ${failed - failures.length} more seeds`);
  return `${lines.join("\n")}\n`;
}

const repeatLine = (scenario: Scenario, seed: number): string => `dmalink sim ${scenario.name} --seed ${seed}`;
