/**
 * Cuts a failing run down to the steps that matter.
 *
 * Idea: leave out ever smaller parts of the steps; whatever still breaks a promise stays (delta debugging). Any subset of
 * steps is a run, so nothing else has to be known about them. Bounded: after {@link LIMIT} runs what there is counts.
 */
import type { SimulationPlan } from "./plan.ts";
import { type RunResult, runSimulation } from "./run.ts";
import type { PlantedParts } from "./world.ts";

const LIMIT = 400;

export function shortestStory(plan: SimulationPlan, parts?: PlantedParts): { plan: SimulationPlan; result: RunResult } {
  let best = plan;
  let result = runSimulation(plan, { ...(parts && { parts }) });
  if (!result.violation) return { plan, result };
  best = { ...plan, steps: plan.steps.slice(0, result.violation.step + 1) };
  let runs = 0;
  for (let size = Math.ceil(best.steps.length / 2); size >= 1 && runs < LIMIT; ) {
    let smaller = false;
    for (let at = 0; at < best.steps.length && runs < LIMIT; ) {
      const steps = [...best.steps.slice(0, at), ...best.steps.slice(at + size)];
      const tried = runSimulation({ ...best, steps }, { ...(parts && { parts }) });
      runs++;
      if (tried.violation && tried.violation.oracle === result.violation!.oracle) {
        best = { ...best, steps };
        result = tried;
        smaller = true;
      } else at += size;
    }
    if (size === 1 && !smaller) break;
    size = size === 1 ? 1 : Math.ceil(size / 2);
    if (size === 1 && smaller && best.steps.length <= 1) break;
  }
  return { plan: best, result };
}
