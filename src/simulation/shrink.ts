/**
 * Cuts a failing run down to the steps that matter.
 *
 * Idea: leave out ever smaller parts of the steps; whatever still breaks a promise stays (delta debugging). Any subset of
 * steps is a run, so nothing else has to be known about them. Bounded: after {@link LIMIT} runs what there is counts.
 */
import type { RunOptions, RunResult, Scenario, SimulationPlan } from "./scenario.ts";

const LIMIT = 400;

/** The fewest steps of a plan that still break the promise, as a plan of its own. */
export async function shortestStory<Config, Step>(
  scenario: Scenario<Config, Step>,
  plan: SimulationPlan<Config, Step>,
  options: RunOptions = {},
): Promise<{
  /** The steps that are left. */
  plan: SimulationPlan<Config, Step>;
  /** What a run of them finds; no violation: the plan breaks no promise. */
  result: RunResult;
}> {
  let result = await scenario.run(plan, options);
  if (!result.violation) return { plan, result };
  let best = { ...plan, steps: plan.steps.slice(0, result.violation.step + 1) };
  let runs = 0;
  for (let size = Math.ceil(best.steps.length / 2); size >= 1 && runs < LIMIT; ) {
    let smaller = false;
    for (let at = 0; at < best.steps.length && runs < LIMIT; ) {
      const tried = { ...best, steps: [...best.steps.slice(0, at), ...best.steps.slice(at + size)] };
      const found = await scenario.run(tried, options);
      runs++;
      if (found.violation?.oracle === result.violation!.oracle) {
        best = tried;
        result = found;
        smaller = true;
      } else at += size;
    }
    if (size === 1 && (!smaller || best.steps.length <= 1)) break;
    size = Math.ceil(size / 2);
  }
  return { plan: best, result };
}
