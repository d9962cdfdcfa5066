/**
 * `dmalink sim`: whole machines from seeds, run until a promise of the stack breaks.
 *
 * Text: one line if all was well; for each seed that failed the line that repeats it, and its shortest story.
 * JSON: dmalink.sim/1.
 */
import { SCENARIOS, type Scenario, type SimulationPlan, shortestStory } from "../../../replay/index.ts";
import { type BrokenPromise, simulationJson, simulationText } from "../../../report/index.ts";
import { TraceRecorder } from "../../../trace/index.ts";
import { type Output, Outputs, writeOutput } from "../files/output.ts";
import { UndoOnExit } from "../files/undo-on-exit.ts";
import { print, printJson } from "../terminal/print.ts";
import { progressLine } from "../terminal/progress.ts";

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

/** Failures that are told; all are counted. */
const TOLD = 10;

export async function sim(options: SimOptions): Promise<number> {
  const undo = new UndoOnExit();
  const trace =
    options.traceFile === undefined
      ? undefined
      : new Outputs(undo, [], options.json).claim("--trace", options.traceFile);
  try {
    return await run(options, trace);
  } finally {
    undo.run();
  }
}

async function run(options: SimOptions, trace: Output | undefined): Promise<number> {
  const { first, minutes } = options;
  const scenario = SCENARIOS[options.scenario]!;
  const progress = progressLine();
  const until = minutes === undefined ? undefined : performance.now() + minutes * 60_000;
  const failures: BrokenPromise[] = [];
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
  const result = { seeds, events, bytesMoved: bytes, failed, failures };
  if (options.json) printJson(simulationJson(scenario, result));
  else print(simulationText(scenario, result));
  return failed === 0 ? 0 : 1;
}

async function shortest(scenario: Scenario, plan: SimulationPlan): Promise<BrokenPromise> {
  const { plan: cut, result } = await shortestStory(scenario, plan);
  return { seed: plan.seed, violation: result.violation!, plan: cut, steps: plan.steps.length };
}
