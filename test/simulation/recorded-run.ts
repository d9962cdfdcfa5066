/**
 * A simulated machine as a recording, judged as one of a real kernel: what `dmalink sim --trace` writes, through `check`.
 *
 * Idea: a machine that kept its promises gives no error but those that its plan ordered: where the plan lets tables, the bounce pool or
 * address space run out, a map may fail, and a map that failed is an error of `check`.
 */
import { type CheckResult, checkTrace } from "../../src/analysis/index.ts";
import { mapping, nvme } from "../../src/simulation/index.ts";
import { bytesInput, openTrace, TraceRecorder } from "../../src/trace/index.ts";

/** One seed of a scenario: what it broke, and what `check` says of its recording. */
export interface RecordedRun {
  /** The promise that the machine itself broke; `undefined`: none. */
  readonly broken: string | undefined;
  readonly checked: CheckResult;
  /** Errors that nothing in the plan explains. */
  readonly unordered: readonly string[];
}

/** Scenarios whose devices map through the DMA API. */
export type RecordedScenario = "mapping" | "nvme";

/** Runs `seed` of a scenario and judges its recording. */
export async function recordedRun(scenario: RecordedScenario, seed: number): Promise<RecordedRun> {
  const recorder = new TraceRecorder();
  const options = { observer: recorder };
  let isShort: boolean;
  let broken: string | undefined;
  if (scenario === "mapping") {
    const plan = mapping.plan(seed);
    isShort = plan.steps.some((step) => step.do === "fail table" || step.do === "fill pool");
    broken = (await mapping.run(plan, options)).violation?.message;
  } else {
    const plan = nvme.plan(seed);
    isShort = plan.config.faults.includes("IOVA exhaustion");
    broken = (await nvme.run(plan, options)).violation?.message;
  }
  const checked = await checkTrace(await openTrace(bytesInput(`${scenario} seed ${seed}`, recorder.dat())));
  const unordered = checked.findings.flatMap(({ severity, rule, message }) =>
    severity !== "error" || (isShort && rule === "invalid-address") ? [] : [`seed ${seed}: ${rule}: ${message}`],
  );
  return { broken, checked, unordered };
}
