/**
 * What a run of simulated machines came to: for people, and as `dmalink.sim/1`.
 *
 * Promises: for each seed that failed, the line that repeats it and its shortest story. Not for: running them (simulation).
 */
import type { Scenario, SimulationPlan, Violation } from "../../simulation/index.ts";
import { PLAIN, type Style } from "../text/style.ts";

/** A seed whose machine broke a promise. */
export interface BrokenPromise {
  /** What repeats it. */
  readonly seed: number;
  /** What was broken, by the shortest story. */
  readonly violation: Violation;
  /** As few steps as still break it. */
  readonly plan: SimulationPlan;
  /** Steps of the whole plan. */
  readonly steps: number;
}

/** All seeds of one run. */
export interface SimulationResult {
  /** Machines that were run. */
  readonly seeds: number;
  /** Steps that did something, of all of them. */
  readonly events: number;
  /** Bytes that devices moved, of all of them. */
  readonly bytesMoved: number;
  /** Machines that broke a promise. */
  readonly failed: number;
  /** The first of them. */
  readonly failures: readonly BrokenPromise[];
}

/** For people: one line if all was well, and the story of each seed that failed. */
export function simulationText(scenario: Scenario, result: SimulationResult, { paint }: Style = PLAIN): string {
  const { seeds, events, bytesMoved, failed, failures } = result;
  const lines = [
    `${seeds.toLocaleString("en")} machine${seeds === 1 ? "" : "s"}, ${events.toLocaleString("en")} steps, ` +
      `${(bytesMoved / 2 ** 20).toFixed(1)} MiB moved by devices: ` +
      (failed === 0 ? paint("good", "every promise kept") : paint("error", `${failed} broke a promise`)),
  ];
  for (const { seed, violation, plan, steps } of failures) {
    lines.push("", paint("error", `seed ${seed} (${violation.oracle}): ${violation.message}`));
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

/** As data. */
export function simulationJson(scenario: Scenario, result: SimulationResult): object {
  const { seeds, events, bytesMoved, failed, failures } = result;
  return {
    schema: "dmalink.sim/1",
    scenario: scenario.name,
    seeds,
    events,
    bytesMoved,
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
}
