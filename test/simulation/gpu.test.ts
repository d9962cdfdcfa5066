/** GPUs in a process from seeds, and defects of a GPU that must be found. */
import { describe, expect, test } from "vitest";
import { gpu, type PlantedParts, runGpu, shortestStory, stormPlan } from "../../src/simulation/index.ts";
import { LONG, many } from "../effort.ts";

const firstViolation = async (parts: PlantedParts): Promise<string | undefined> => {
  for (let seed = 1; seed <= 30; seed++) {
    const { violation } = await gpu.run(gpu.plan(seed), { parts });
    if (violation) return violation.oracle;
  }
  return undefined;
};

describe("GPUs in the memory of a process", () => {
  test("keep every promise in the first seeds", { timeout: 300_000 }, async () => {
    for (let seed = 1; seed <= many(2); seed++) {
      const { violation } = await gpu.run(gpu.plan(seed));
      expect([seed, violation?.message]).toEqual([seed, undefined]);
    }
  });

  test("are the same from the same seed", async () => {
    expect(await gpu.run(gpu.plan(3))).toEqual(await gpu.run(gpu.plan(3)));
    expect(gpu.plan(4)).not.toEqual(gpu.plan(3));
  });

  test("a GPU whose TLB forgets nothing reads what was freed, and is found", async () => {
    const forgetful: PlantedParts = {
      gpu: ({ mmu }) => {
        mmu.invalidateRange = () => {};
      },
    };
    expect(["bytes", "poison", "leak", "trust"]).toContain(await firstViolation(forgetful));
  });

  test("a copy engine that drops a page is found, with its shortest story", { timeout: 120_000 }, async () => {
    const parts: PlantedParts = {
      gpu: (model) => {
        const copyIn = model.copyIn.bind(model);
        model.copyIn = (from, to, pages) => (pages > 1 ? copyIn(from, to, pages - 1) : copyIn(from, to, pages));
      },
    };
    for (let seed = 1; seed <= 30; seed++) {
      const plan = gpu.plan(seed);
      if (!(await gpu.run(plan, { parts })).violation) continue;
      const story = await shortestStory(gpu, plan, { parts });
      expect(story.plan.steps.length).toBeLessThan(12);
      for (const step of story.plan.steps) expect(gpu.stepInWords(step)).toMatch(/[a-z]/);
      expect(gpu.machineInWords(plan.config)).toContain("GPU");
      return;
    }
    throw new Error("nothing was found");
  });

  test.runIf(LONG)("weather a storm of 100000 steps of eight threads over 64 MiB", { timeout: 3_600_000 }, () => {
    const { violation, events } = runGpu(stormPlan(Number(process.env.DMALINK_SEED ?? 1), 100_000));
    expect([violation, events]).toEqual([undefined, 100_000]);
  });
});
