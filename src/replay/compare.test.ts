import { describe, expect, test } from "vitest";
import { Requests, type RequestValue } from "../analysis/index.ts";
import { Random } from "../base/index.ts";
import { FORMAT_NAMES } from "../layouts/pagetable/index.ts";
import {
  type Comparison,
  compare,
  costOf,
  fitCost,
  PUBLISHED_COST,
  predict,
  STRATEGIES,
  STRATEGY_NAMES,
  type Strategy,
  type StrategyName,
} from "./index.ts";
import { planOf } from "./plan.ts";

/** A load of requests of 1 to 32 scattered pages, up to 16 alive at once. */
function load(seed: number, requests: number): Requests {
  const random = Random.fromSeed(seed);
  const values: { -readonly [Key in keyof RequestValue]: RequestValue[Key] }[] = [];
  const open: number[] = [];
  let page = 0xf0000;
  for (let i = 0; i < requests; i++) {
    const pages = random.between(1, 32);
    page -= pages;
    const segments = Array.from({ length: pages }, (_, k) => ({
      iova: (page + k) * 4096,
      phys: random.below(200_000) * 4096,
      length: 4096,
    }));
    values.push({ segments, startNs: i * 1000, endNs: 1e9 });
    open.push(i);
    if (open.length > 16) values[open.splice(random.below(open.length), 1)[0]!]!.endNs = i * 1000 + 500;
  }
  return Requests.of(values);
}

describe("compare", () => {
  for (const iommu of FORMAT_NAMES)
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
    const multi = [...requests].filter((request) => request.segments.length > 1).length;
    const of = (name: StrategyName) => strategies.find((strategy) => strategy.name === name)!;
    const [oneShot, list, twoStep, vector] = [of("one-shot"), of("scatterlist"), of("two-step"), of("two-step-vector")];
    expect([oneShot.iovaOps, oneShot.mapSyncs, oneShot.invalidations]).toEqual([segments * 2, segments, segments]);
    expect([list.iovaOps, list.mapSyncs, list.invalidations]).toEqual([100, 50, 50]);
    expect([twoStep.iovaOps, twoStep.mapSyncs, twoStep.invalidations]).toEqual([100, 50, 50]);
    expect([oneShot.metadataBytes, list.metadataBytes]).toEqual([segments * 16, segments * 32]);
    expect(twoStep.metadataBytes).toBe(50 * 16);
    expect(multi).toBeGreaterThan(40);
    for (const { name, pteWrites } of strategies)
      if (name !== "premapped") expect(pteWrites).toBeGreaterThanOrEqual(pages * 2);
    expect({ ...vector, name: "", summary: "", calls: 0 }).toEqual({ ...twoStep, name: "", summary: "", calls: 0 });
  });

  test("lazy: entries of the flush queue instead of range invalidations", () => {
    const { strategies } = compare(load(3, 50), { mode: "lazy" });
    for (const { name, flushQueueEntries, invalidations } of strategies) {
      if (name === "premapped") {
        expect([flushQueueEntries, invalidations]).toEqual([0, 0]);
        continue;
      }
      expect(flushQueueEntries, name).toBeGreaterThan(0);
      expect(invalidations, name).toBeLessThan(flushQueueEntries);
    }
  });

  test("the same trace and seed give the same answer", () => {
    expect(compare(load(5, 20), { seed: 9 })).toEqual(compare(load(5, 20), { seed: 9 }));
  });

  test("what is live at the end is not torn down in the count", () => {
    const live = { segments: [{ iova: 0x1_0000, phys: 0x5000, length: 4096 }], startNs: 1, endNs: undefined };
    const { liveAtEnd, strategies } = compare(Requests.of([live]));
    expect(liveAtEnd).toBe(1);
    expect(strategies.map(({ invalidations }) => invalidations)).toEqual(STRATEGIES.map(() => 0));
  });

  test("a trace with nothing in it is an empty answer, not an error", () => {
    expect(compare(Requests.of([]))).toMatchObject({ requests: 0, bytes: 0, mismatches: 0 });
  });

  test("what cannot be memory is left out and counted; 128 MiB at once is not too much", () => {
    const one = (startNs: number, phys: number, length: number): RequestValue => ({
      segments: [{ iova: 0x1_0000, phys, length }],
      startNs,
      endNs: startNs + 1,
    });
    const result = compare(Requests.of([one(1, 2 ** 60, 4096), one(3, 0x5000, 2 ** 52), one(5, 2 ** 32, 2 ** 27)]));
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

  /** Requests of these segments, each mapped and given back before the next. */
  function requestsOf(list: readonly (readonly (readonly [phys: number, length: number])[])[]): Requests {
    return Requests.of(
      list.map((segments, i) => ({
        segments: segments.map(([phys, length], k) => ({ iova: 0x1000_0000 + k * 0x10_0000, phys, length })),
        startNs: i * 1000,
        endNs: i * 1000 + 500,
      })),
    );
  }
  const of = ({ strategies }: Comparison, name: StrategyName) => strategies.find((strategy) => strategy.name === name)!;

  test("the strategies are in one order everywhere", () => {
    expect(STRATEGIES.map(({ name }) => name)).toEqual(STRATEGY_NAMES);
  });

  test("coalesced maps a run of neighbours once; one-shot each segment", () => {
    const result = compare(
      requestsOf([
        [
          [0x5000, 4096],
          [0x6000, 4096],
          [0x9000, 4096],
        ],
      ]),
    );
    expect([of(result, "one-shot").iovaOps, of(result, "coalesced").iovaOps]).toEqual([6, 4]);
    expect([of(result, "one-shot").calls, of(result, "coalesced").calls]).toEqual([6, 4]);
  });

  test("batch and linear reserve, sync and invalidate once a request, whatever is in it", () => {
    const requests = load(3, 50);
    for (const name of ["batch", "linear"] as const) {
      const { iovaOps, mapSyncs, invalidations } = of(compare(requests), name);
      expect([name, iovaOps, mapSyncs, invalidations]).toEqual([name, 100, 50, 50]);
    }
  });

  test("premapped: pages that come again cost nothing; all of them are reachable all the time", () => {
    const again = Array.from(
      { length: 20 },
      () =>
        [
          [0x5000, 8192],
          [0x20000, 4096],
        ] as const,
    );
    const result = compare(requestsOf(again));
    const premapped = of(result, "premapped");
    expect(premapped).toMatchObject({ iovaOps: 2, invalidations: 0, pteWrites: 6, calls: 2, reachableBytes: 12_288 });
    expect(of(result, "one-shot")).toMatchObject({ iovaOps: 80, reachableBytes: 12_288 });
    expect([result.distinctPages, result.pages]).toEqual([3, 60]);
  });

  test("caching mode: every sync is an invalidation too, and lazy becomes strict", () => {
    const plain = compare(load(3, 50));
    const caching = compare(load(3, 50), { cachingMode: true, mode: "lazy" });
    expect(caching.mode).toBe("strict");
    expect(caching.mismatches).toBe(0);
    for (const { name, invalidations, mapSyncs } of caching.strategies)
      expect([name, invalidations - mapSyncs]).toEqual([name, of(plain, name).invalidations]);
  });

  test("a request cap cuts at pages, and every byte is still there", () => {
    const requests = requestsOf([
      [
        [0x5000, 40_960],
        [0x100000, 16_384],
      ],
      [[0x200000, 4096]],
    ]);
    const whole = compare(requests);
    const capped = compare(requests, { requestCap: 16_384 });
    expect([capped.requests, capped.cut, capped.pieces]).toEqual([2, 1, 5]);
    expect([capped.bytes, capped.verifiedBytes, capped.mismatches]).toEqual([whole.bytes, whole.verifiedBytes, 0]);
    const { loads } = planOf(requests, { requestCap: 16_384 });
    expect([...loads].map(({ length }) => length)).toEqual([16_384, 16_384, 16_384, 8192, 4096]);
    expect([...loads].every(({ linear }) => linear)).toBe(true);
  });

  test("what if huge pages: every request is one segment, a buffer that comes again the same one", () => {
    const requests = requestsOf([
      [
        [0x5000, 4096],
        [0x9000, 8192],
      ],
      [[0x5000, 4096]],
      [
        [0x30000, 4096],
        [0x50000, 4096],
      ],
    ]);
    const result = compare(requests, { hugePages: true });
    expect([result.segments, result.bytes, result.mismatches]).toEqual([3, 24_576, 0]);
    const loads = [...planOf(requests, { hugePages: true }).loads];
    expect(loads[0]!.vecs[0]!.phys).toBe(loads[1]!.vecs[0]!.phys);
    expect(loads[2]!.vecs[0]!.phys).toBe(loads[0]!.vecs[0]!.phys + 12_288);
  });

  test("what if the allocator cached long ranges: the same work without the search", () => {
    const long = Array.from(
      { length: 60 },
      (_, i) =>
        [
          [0x100000 + i * 0x100000, 64 * 4096],
          [0x8000000 + i * 4096, 4096],
        ] as const,
    );
    const linux = of(compare(requestsOf(long)), "two-step");
    const cached = of(compare(requestsOf(long), { largestCached: 128 }), "two-step");
    expect([linux.uncached, cached.uncached]).toEqual([60, 0]);
    expect(cached.iovaSteps).toBeLessThan(linux.iovaSteps);
    expect(cached.invalidations).toBe(linux.invalidations);
  });

  test("table memory and reachable bytes are the most at any time", () => {
    const { strategies, pages } = compare(requestsOf([[[0x5000, 8192]], [[0x9000, 4096]]]));
    expect(pages).toBe(3);
    for (const { name, tableBytes, reachableBytes } of strategies) {
      expect([name, tableBytes]).toEqual([name, 4 * 4096]); // a table on each of four levels
      expect([name, reachableBytes]).toEqual([name, name === "premapped" ? 12_288 : 8192]);
    }
  });
});

describe("the cost model", () => {
  test("gives back the pair that it was fitted from", () => {
    const page = { iovaOps: 2, pteWrites: 2, iovaSteps: 0, calls: 0 };
    const extra = (perSecond: number) => 1e9 / perSecond - 1e9 / 5_010_000;
    expect(predict({ ...page, invalidations: 1 }, PUBLISHED_COST)).toBeCloseTo(extra(570_000), -1);
    expect(predict({ ...page, invalidations: 0 }, PUBLISHED_COST)).toBeCloseTo(extra(1_930_000), -1);
    expect(fitCost({ strict: 1e6, lazy: 2e6, premapped: 4e6 }, 5, 1)).toEqual({
      invalidationNs: 500,
      iovaOpNs: 120,
      pteWriteNs: 5,
      iovaStepNs: 1,
      callNs: 0,
    });
  });

  test("takes prices from a file, and says what is wrong with one", () => {
    expect(costOf('{"invalidationNs": 250, "callNs": 400}', "c")).toEqual({
      ...PUBLISHED_COST,
      invalidationNs: 250,
      callNs: 400,
    });
    for (const [text, said] of [
      ["{", /no JSON/],
      ["[]", /not an object/],
      ['{"inval": 1}', /"inval" is none of them/],
      ['{"callNs": -1}', /callNs is -1/],
    ] as const)
      expect(() => costOf(text, "cost.json")).toThrow(said);
  });

  test("prices change what is predicted and nothing else", () => {
    const plain = compare(load(3, 20));
    const dear = compare(load(3, 20), { cost: { ...PUBLISHED_COST, callNs: 1000 } });
    for (const [i, { predictedNs, ...counts }] of dear.strategies.entries()) {
      const { predictedNs: before, ...same } = plain.strategies[i]!;
      expect(counts).toEqual(same);
      expect(predictedNs - before).toBeCloseTo(counts.calls * 1000, 3);
    }
  });
});
