/** `dmalink sim`: whole machines from seeds, run until a promise of the stack breaks. */

import type { BrokenPromise, SimulationResult } from "../../../report/index.ts";
import type { Scenario } from "../../../simulation/index.ts";
import { type Command, command } from "../command.ts";
import { UsageError } from "../exit-errors.ts";
import type { Output } from "../files/output.ts";
import { file, JSON_ANSWER, option, wholeNumber } from "../options.ts";
import { answerStyle, print, printJson } from "../terminal/print.ts";
import { progressLine } from "../terminal/progress.ts";

/** Failures that are told; all are counted. */
const TOLD = 10;

/** Inclusive. */
interface Seeds {
  readonly first: number;
  readonly last: number;
}

function parseSeeds(word: string): Seeds {
  const match = /^(\d{1,15})\.\.(\d{1,15})$/.exec(word);
  if (!match || Number(match[1]) > Number(match[2]))
    throw new UsageError(`--seeds ${word}: A..B with A up to B is needed, such as 1..500`);
  return { first: Number(match[1]), last: Number(match[2]) };
}

function parseMinutes(word: string, name: string): number {
  if (!(Number(word) > 0)) throw new UsageError(`${name} ${word}: a number above 0 is needed`);
  return Number(word);
}

const scenarioNames = async (): Promise<string[]> =>
  Object.keys((await import("../../../simulation/index.ts")).SCENARIOS);

export const sim: Command = command({
  name: "sim",
  summary: "whole machines from seeds, with faults: mapping (default), nvme, rdma, gpu, tee, dmabuf or vfio",
  description:
    "A seed makes a machine, a load and its faults; while it runs, the promises of the stack are watched. For each seed that " +
    "breaks one: the line that repeats it, and its shortest story. Exit code 1 if there is one.",
  arguments: [
    {
      name: "SCENARIO",
      meaning: "mapping (default), nvme, rdma, gpu, tee, dmabuf or vfio",
      optional: true,
      completes: scenarioNames,
    },
  ],
  options: {
    seed: wholeNumber("this seed only", 0),
    seeds: option("A..B", "these seeds (default: 1..100)", parseSeeds),
    minutes: option("N", "as many seeds as fit, from the first on", parseMinutes),
    trace: file("with --seed: what it did, as a trace.dat for dmalink check and stats"),
    json: JSON_ANSWER,
  },
  examples: ["dmalink sim --seeds 1..500", "dmalink sim nvme --seed 314", "dmalink sim tee --seeds 1..200"],
  async run({ arguments: [name = "mapping"], options }) {
    const { seed, minutes, json } = options;
    if (seed !== undefined && options.seeds !== undefined)
      throw new UsageError("--seed and --seeds: one of them says which seeds");
    const seeds = seed === undefined ? (options.seeds ?? parseSeeds("1..100")) : { first: seed, last: seed };
    if (options.trace !== undefined && seeds.first !== seeds.last)
      throw new UsageError("--trace: one seed is needed, --seed N");
    const { SCENARIOS } = await import("../../../simulation/index.ts");
    const scenario = Object.hasOwn(SCENARIOS, name) ? SCENARIOS[name] : undefined;
    if (!scenario) throw new UsageError(`scenario ${name}: one of ${Object.keys(SCENARIOS).join(", ")} is needed`);
    const { simulationJson, simulationText } = await import("../../../report/index.ts");
    const { Outputs } = await import("../files/output.ts");
    const { UndoOnExit } = await import("../files/undo-on-exit.ts");
    const undo = new UndoOnExit();
    try {
      const trace =
        options.trace === undefined ? undefined : new Outputs(undo, [], json).claim("--trace", options.trace);
      const result = await runSeeds(scenario, seeds, minutes, trace);
      if (json) printJson(simulationJson(scenario, result));
      else print(simulationText(scenario, result, answerStyle()));
      return result.failed === 0 ? 0 : 1;
    } finally {
      undo.run();
    }
  },
});

/** Runs the machines of `seeds`; with `trace`, each one's recording goes there. */
async function runSeeds(
  scenario: Scenario,
  { first, last }: Seeds,
  minutes: number | undefined,
  trace: Output | undefined,
): Promise<SimulationResult> {
  const { shortestStory } = await import("../../../simulation/index.ts");
  const { TraceRecorder } = await import("../../../trace/index.ts");
  const { writeOutput } = await import("../files/output.ts");
  const progress = progressLine();
  progress.say(`running machines of ${scenario.name}`);
  const until = minutes === undefined ? undefined : performance.now() + minutes * 60_000;
  const failures: BrokenPromise[] = [];
  let [seeds, events, bytes, failed] = [0, 0, 0, 0];
  for (let seed = first; until === undefined ? seed <= last : performance.now() < until; seed++) {
    const plan = scenario.plan(seed);
    const recorder = trace && new TraceRecorder();
    const result = await scenario.run(plan, { ...(recorder && { observer: recorder }) });
    if (trace && recorder) writeOutput(trace, (emit) => emit(recorder.dat()));
    seeds++;
    events += result.events;
    bytes += result.bytesMoved;
    if (result.violation) {
      failed++;
      if (failures.length < TOLD) {
        const { plan: cut, result: again } = await shortestStory(scenario, plan);
        failures.push({ seed, violation: again.violation!, plan: cut, steps: plan.steps.length });
      }
    }
    progress.reached(
      until === undefined ? seeds / (last - first + 1) : 1 - (until - performance.now()) / (minutes! * 60_000),
      `seed ${seed}, ${failed} failed`,
    );
  }
  progress.done();
  return { seeds, events, bytesMoved: bytes, failed, failures };
}
