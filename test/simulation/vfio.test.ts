/** Guests that devices are given to, from seeds; and the tests of that test: defects that are planted must be found. */
import { describe, expect, test } from "vitest";
import { type PlantedParts, shortestStory, vfio } from "../../src/simulation/index.ts";
import { many } from "../effort.ts";

const seeds = many(6);
const first = Number(process.env["DMALINK_VFIO_SEED"] ?? 1);

/** Oracles by which the first seeds find a defect: one is enough. */
async function found(parts: PlantedParts): Promise<string[]> {
  for (let seed = 1; seed <= 40; seed++) {
    const { violation } = await vfio.run(vfio.plan(seed), { parts });
    if (violation) return [violation.oracle];
  }
  return [];
}

describe("guests with devices of their own, from seeds", () => {
  test(`seeds ${first}..${first + seeds - 1} keep every promise`, { timeout: 180_000 }, async () => {
    for (let seed = first; seed < first + seeds; seed++) {
      const { violation } = await vfio.run(vfio.plan(seed));
      expect([seed, violation?.message]).toEqual([seed, undefined]);
    }
  });

  test("a seed is a run: the same steps, the same events, the same bytes", async () => {
    expect(await vfio.run(vfio.plan(3))).toEqual(await vfio.run(vfio.plan(3)));
    expect(vfio.plan(4)).not.toEqual(vfio.plan(3));
  });

  const forgetful: PlantedParts = {
    unit: (unit) => ({
      attach: (...args) => unit.attach(...args),
      detach: (requester) => unit.detach(requester),
      invalidateRange: () => {},
      invalidateDomain: (domainId) => unit.invalidateDomain(domainId),
      syncMap: (...args) => unit.syncMap(...args),
    }),
  };

  test.each<[string, string, PlantedParts]>([
    ["an IOMMU that forgets no page", "teardown", forgetful],
    [
      "an unmap that keeps a pin",
      "leak",
      {
        guest: ({ frames }) => {
          const { unpin } = frames;
          frames.unpin = (page, count, dirty) => unpin.call(frames, page, Math.max(1, count - 1), dirty);
        },
      },
    ],
    [
      "a map that leaves its last page out",
      "teardown",
      {
        guest: ({ iommufd }) => {
          const map = iommufd.map.bind(iommufd);
          iommufd.map = (ioas, process, address, request) =>
            map(ioas, process, address, { ...request, length: request.length - (request.length > 4096n ? 4096n : 0n) });
        },
      },
    ],
    [
      "a container that maps the neighbour's memory",
      "teardown",
      {
        guest: ({ container }) => {
          if (!container) return;
          const map = container.map.bind(container);
          container.map = (process, vaddr, iova, size, access) =>
            map(process, vaddr + (iova > 0n ? -4096n : 0n), iova, size, access);
        },
      },
    ],
    [
      "a log of writes that loses every third page",
      "bytes",
      {
        dirty: (source) => ({
          ...source,
          name: source.name,
          start: () => source.start(),
          stop: () => source.stop(),
          collect: (mark) => source.collect((page, count) => (page % 3 === 2 ? undefined : mark(page, count))),
        }),
      },
    ],
    [
      "a hand-over that charges nobody",
      "leak",
      {
        guest: ({ iommufd }) => {
          iommufd.changeProcess = () => {};
        },
      },
    ],
  ])("find %s", async (_name, oracle, parts) => expect(await found(parts)).toEqual([oracle]));

  test("tell the shortest story of a failure, in words", async () => {
    for (let seed = 1; seed <= 30; seed++) {
      const plan = vfio.plan(seed);
      if (!(await vfio.run(plan, { parts: forgetful })).violation) continue;
      const story = await shortestStory(vfio, plan, { parts: forgetful });
      expect(story.plan.steps.length).toBeLessThan(4);
      for (const step of story.plan.steps) expect(vfio.stepInWords(step)).toMatch(/[a-z]/);
      expect(vfio.machineInWords(plan.config)).toContain("IOMMUs with");
      return;
    }
    throw new Error("no seed found it");
  });
});
