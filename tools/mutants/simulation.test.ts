/** Whole machines by seed, as tests of their own: a mutant is asked until the first seed that notices it. */
import { expect, test } from "vitest";
import { type RecordedScenario, recordedRun } from "../../test/simulation/recorded-run.ts";

const RUNS: readonly (readonly [RecordedScenario, number])[] = [
  ["mapping", 500],
  ["nvme", 60],
];
for (const [scenario, seeds] of RUNS)
  for (let first = 1; first <= seeds; first += 20)
    test(`${scenario}, seeds ${first} to ${first + 19}`, { timeout: 300_000 }, async () => {
      for (let seed = first; seed < first + 20; seed++) {
        const { broken, unordered } = await recordedRun(scenario, seed);
        expect([seed, broken, unordered]).toEqual([seed, undefined, []]);
      }
    });
