/** Processes of the simulated machine under random histories: counts, permissions, and nothing left at the end. */
import { describe, expect, test } from "vitest";
import { many } from "../effort.ts";
import { ProcessHistory } from "./process.ts";

/** Histories, and steps of each. More by hand. */
const SEEDS = many(12);
const STEPS = 150;

const run = (seed: number, options = {}): string => {
  const history = new ProcessHistory(seed, options);
  try {
    for (let i = 0; i < STEPS; i++) history.step();
    history.end();
    return "clean";
  } catch (error) {
    return `seed ${seed}, step ${history.steps.length}: ${(error as Error).message}\n${JSON.stringify(history.steps.slice(-8))}`;
  }
};

describe("a random history of processes", () => {
  test("keeps every count true, gives no right that would show others a write, and leaves no page behind", () => {
    for (let seed = 1; seed <= SEEDS; seed++) expect(run(seed)).toBe("clean");
  });

  test("does so when one allocation in forty fails", () => {
    for (let seed = 1001; seed <= 1000 + SEEDS; seed++) expect(run(seed, { shortOfMemory: true })).toBe("clean");
  });

  test("does so when memory is short, and pages go to swap, move and are joined", () => {
    for (let seed = 2001; seed <= 2000 + SEEDS; seed++) expect(run(seed, { pressed: true })).toBe("clean");
  });

  test("is the same each time for one seed", () => {
    const steps = [1, 2].map(() => {
      const history = new ProcessHistory(77);
      for (let i = 0; i < 60; i++) history.step();
      return history.steps;
    });
    expect(steps[0]).toEqual(steps[1]);
  });
});
