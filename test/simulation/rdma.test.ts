/** RDMA from seeds, and the tests of that test: a defect of the adapter must be found. */
import { describe, expect, test } from "vitest";
import { type PlantedParts, rdma, shortestStory } from "../../src/simulation/index.ts";
import { many } from "../effort.ts";

const seeds = many(4);

/** Seeds of the first thirty whose run breaks a promise with this defect, by oracle. */
async function found(parts: PlantedParts): Promise<Set<string>> {
  const oracles = new Set<string>();
  for (let seed = 1; seed <= 30 && oracles.size < 1; seed++) {
    const { violation } = await rdma.run(rdma.plan(seed), { parts });
    if (violation) oracles.add(violation.oracle);
  }
  return oracles;
}

describe("two machines with RDMA from seeds", () => {
  test(`seeds 1..${seeds} keep every promise`, { timeout: 180_000 }, async () => {
    for (let seed = 1; seed <= seeds; seed++) {
      const { violation } = await rdma.run(rdma.plan(seed));
      expect([seed, violation?.message]).toEqual([seed, undefined]);
    }
  });

  test("a seed is a run: the same steps, the same events, the same bytes", async () => {
    expect(await rdma.run(rdma.plan(3))).toEqual(await rdma.run(rdma.plan(3)));
    expect(rdma.plan(4)).not.toEqual(rdma.plan(3));
  });

  const forgetful: PlantedParts = {
    adapter: (adapter) => {
      adapter.forgetBlocks = () => {};
    },
  };

  test("find an adapter that forgets no block", async () => {
    expect([...(await found(forgetful))]).not.toEqual([]);
  });

  test("find an adapter that does not look at the variant of a key", async () => {
    const careless: PlantedParts = {
      adapter: ({ regions }) => {
        const { allows } = regions;
        regions.allows = (key, ...rest) => allows.call(regions, key, ...rest) || allows.call(regions, key ^ 1, ...rest);
        for (const name of ["read", "write"] as const) {
          const access = regions[name];
          regions[name] = (key, address, bytes) => {
            const outcome = access.call(regions, key, address, bytes);
            return outcome === "denied" ? access.call(regions, key ^ 1, address, bytes) : outcome;
          };
        }
      },
    };
    expect([...(await found(careless))]).toContain("trust");
  });

  test("tell the shortest story of a failure, in words", async () => {
    for (let seed = 1; seed <= 30; seed++) {
      const plan = rdma.plan(seed);
      if (!(await rdma.run(plan, { parts: forgetful })).violation) continue;
      const story = await shortestStory(rdma, plan, { parts: forgetful });
      expect(story.plan.steps.length).toBeLessThan(8);
      for (const step of story.plan.steps) expect(rdma.stepInWords(step)).toMatch(/[a-z]/);
      expect(rdma.machineInWords(plan.config)).toContain("two machines");
      return;
    }
    throw new Error("no seed found it");
  });
});
