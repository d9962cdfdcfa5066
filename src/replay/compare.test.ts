import { describe, expect, test } from "vitest";
import { RequestBuilder, type Requests } from "../analysis/index.ts";
import { Random } from "../base/index.ts";
import { compare, IOMMU_KINDS, STRATEGIES, type Strategy } from "./index.ts";

/** A load of requests of 1 to 32 scattered pages, up to 16 alive at once. */
function load(seed: number, requests: number): Requests {
  const random = Random.fromSeed(seed);
  const builder = new RequestBuilder();
  const open: [number, number][] = [];
  let page = 0xf0000;
  for (let i = 0; i < requests; i++) {
    const pages = random.between(1, 32);
    page -= pages;
    for (let k = 0; k < pages; k++) builder.map(i * 1000 + k, 0, page + k, random.below(200_000) * 4096, 1);
    open.push([page, pages]);
    if (open.length > 16) builder.unmap(i * 1000 + 500, ...open.splice(random.below(open.length), 1)[0]!);
  }
  for (const range of open) builder.unmap(1e9, ...range);
  return builder.finish();
}

describe("compare", () => {
  for (const iommu of IOMMU_KINDS)
    for (const mode of ["strict", "lazy"] as const)
      test(`moves and checks every byte under every strategy: ${iommu}, ${mode}`, () => {
        const result = compare(load(7, 60), { iommu, mode });
        expect(result.mismatches).toBe(0);
        // Bidirectional: each byte is read once and written once, under each strategy.
        expect(result.verifiedBytes).toBe(result.bytes * 2 * STRATEGIES.length);
      });

  test("counts what the cost matrix says, exactly", () => {
    const requests = load(3, 50);
    const { strategies, segments, pages } = compare(requests);
    const multi = requests.requests.filter((request) => request.segments.length > 1).length;
    const [oneShot, list, twoStep, vector] = strategies;
    expect([oneShot!.iovaOps, oneShot!.mapSyncs, oneShot!.invalidations]).toEqual([segments * 2, segments, segments]);
    expect([list!.iovaOps, list!.mapSyncs, list!.invalidations]).toEqual([100, 50, 50]);
    expect([twoStep!.iovaOps, twoStep!.mapSyncs, twoStep!.invalidations]).toEqual([100, 50, 50]);
    expect([oneShot!.metadataBytes, list!.metadataBytes]).toEqual([segments * 16, segments * 32]);
    expect(twoStep!.metadataBytes).toBe(50 * 16);
    expect(multi).toBeGreaterThan(40);
    for (const { pteWrites } of strategies) expect(pteWrites).toBeGreaterThanOrEqual(pages * 2);
    expect({ ...vector, name: "", summary: "" }).toEqual({ ...twoStep, name: "", summary: "" });
  });

  test("lazy: entries of the flush queue instead of range invalidations", () => {
    const { strategies } = compare(load(3, 50), { mode: "lazy" });
    for (const { name, flushQueueEntries, invalidations } of strategies) {
      expect(flushQueueEntries, name).toBeGreaterThan(0);
      expect(invalidations, name).toBeLessThan(flushQueueEntries);
    }
  });

  test("the same trace and seed give the same answer", () => {
    expect(compare(load(5, 20), { seed: 9 })).toEqual(compare(load(5, 20), { seed: 9 }));
  });

  test("what is live at the end is not torn down in the count", () => {
    const builder = new RequestBuilder();
    builder.map(1, 0, 0x10, 0x5000, 1);
    const { liveAtEnd, strategies } = compare(builder.finish());
    expect(liveAtEnd).toBe(1);
    expect(strategies.map(({ invalidations }) => invalidations)).toEqual([0, 0, 0, 0]);
  });

  test("a trace with nothing in it is an empty answer, not an error", () => {
    expect(compare(new RequestBuilder().finish())).toMatchObject({ requests: 0, bytes: 0, mismatches: 0 });
  });

  test("what cannot be memory is left out and counted; 128 MiB at once is not too much", () => {
    const builder = new RequestBuilder();
    builder.map(1, 0, 0x10, 2 ** 60, 1);
    builder.unmap(2, 0x10, 1);
    builder.map(3, 0, 0x20, 0x5000, 2 ** 40);
    builder.unmap(4, 0x20, 2 ** 40);
    builder.map(5, 0, 0x100000, 2 ** 32, 2 ** 15);
    builder.unmap(6, 0x100000, 2 ** 15);
    const result = compare(builder.finish());
    expect([result.requests, result.leftOut, result.mismatches]).toEqual([1, 2, 0]);
    expect(result.verifiedBytes).toBe(2 ** 27 * 2 * STRATEGIES.length);
  });

  test("a strategy that maps one page wrongly is found, with both addresses", () => {
    const twoStep = STRATEGIES.find(({ name }) => name === "two-step")! as { map: Strategy["map"] };
    const honest = twoStep.map;
    try {
      twoStep.map = (dma, asked) => {
        const vecs = asked.vecs.map((vec, i) => (i === 1 ? { ...vec, phys: (vec.phys + 4096) as never } : vec));
        return honest(dma, { ...asked, vecs });
      };
      const { mismatches, firstMismatch } = compare(load(11, 5));
      expect(mismatches).toBeGreaterThan(0);
      expect(firstMismatch).toMatchObject({ strategy: "two-step" });
    } finally {
      twoStep.map = honest;
    }
  });
});
