/** Shared buffers from seeds, and the tests of that test: a defect of each kind must be found. */
import { describe, expect, test } from "vitest";
import type { MigratingBuffer } from "../../src/consumers/dmabuf/index.ts";
import { dmabuf, shortestStory } from "../../src/simulation/index.ts";
import { many } from "../effort.ts";

const seeds = many(30);

describe("shared buffers from seeds", () => {
  test(`seeds 1..${seeds} keep every promise`, async () => {
    for (let seed = 1; seed <= seeds; seed++) {
      const { violation } = await dmabuf.run(dmabuf.plan(seed));
      expect([seed, violation?.message]).toEqual([seed, undefined]);
    }
  });

  test("one seed is one run, byte for byte, and another one is another", async () => {
    expect(await dmabuf.run(dmabuf.plan(7))).toEqual(await dmabuf.run(dmabuf.plan(7)));
    expect(dmabuf.plan(8)).not.toEqual(dmabuf.plan(7));
  });

  const defects: readonly (readonly [string, string, (migrating: MigratingBuffer) => void])[] = [
    [
      "unmaps that wait in the flush queue",
      "teardown",
      ({ buffer }) => void Object.assign(buffer.exporter, { teardown: "deferred" }),
    ],
    ["storage that is not freed", "leak", ({ buffer }) => void Object.assign(buffer.exporter, { release: () => {} })],
    [
      "a move that gives the old place to those who follow",
      "bytes",
      ({ buffer }) => {
        const { exporter } = buffer;
        const first = exporter.vectors();
        Object.assign(exporter, {
          part: (offset: number, length: number) => first.slice(offset / 4096, (offset + length) / 4096),
        });
      },
    ],
  ];
  test.each(defects)("%s are found, by the oracle of %s, and told in few steps", async (_what, oracle, buffer) => {
    const parts = { buffer };
    for (let seed = 1; seed <= 100; seed++) {
      const plan = dmabuf.plan(seed);
      const { violation } = await dmabuf.run(plan, { parts });
      if (violation?.oracle !== oracle) continue;
      const story = await shortestStory(dmabuf, plan, { parts });
      expect(story.plan.steps.length).toBeLessThan(10);
      expect(story.plan.steps.map((step) => dmabuf.stepInWords(step)).join("\n")).not.toContain("undefined");
      return;
    }
    throw new Error("no seed finds it");
  });
});
