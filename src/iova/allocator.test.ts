import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { many } from "../../test/effort.ts";
import { ManualClock } from "../../test/models/manual-clock.ts";
import { SlowSpace } from "../../test/models/slow-space.ts";
import { SlowWalk } from "../../test/models/slow-walk.ts";
import { Counters, Random } from "../base/index.ts";
import { IovaAllocator } from "./allocator.ts";

const M4 = 0xfffff; // last page below 4 GiB
const LIMITS = [0, 5, 0xff, 0xfff, M4, M4 + 1, 0xffff_ffff, 2 ** 36 - 1, 2 ** 52 - 1];
const refused = (code: string) => expect.objectContaining({ code: `ERR_DMA_IOVA_${code}`, errno: "EINVAL" });

const size = fc.oneof(
  fc.constantFrom(1, 2, 3, 4, 8, 16, 31, 32, 33, 64, 256),
  fc.integer({ min: 1, max: 70 }),
  fc.integer({ min: 1, max: 0x60000 }),
);

describe("the tree of an IOVA domain", () => {
  const command = fc.oneof(
    { weight: 6, arbitrary: fc.record({ size, limit: fc.constantFrom(...LIMITS), aligned: fc.boolean() }) },
    { weight: 3, arbitrary: fc.record({ free: fc.nat() }) },
    {
      weight: 1,
      arbitrary: fc.record({
        reserve: fc.oneof(
          fc.integer({ min: 0, max: 0x200 }),
          fc.integer({ min: 0xffc00, max: 0x100400 }),
          fc.integer({ min: 2 ** 36 - 0x400, max: 2 ** 36 }),
          fc.constant(2 ** 52 - 1),
        ),
        pages: fc.integer({ min: 1, max: 0x300 }),
      }),
    },
  );

  test("gives the addresses of a walk over every gap, in as many steps, with reservations at any time", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 64 }),
        fc.constantFrom(undefined, 1, 16, 512),
        fc.array(command, { maxLength: 400, size: "max" }),
        (startPfn, alignCap, commands) => {
          const counters = new Counters();
          const domain = new IovaAllocator({
            firstGranule: startPfn,
            counters,
            countSteps: true,
            ...(alignCap && { alignCap }),
          });
          const model = new SlowWalk(startPfn, 2 ** 20, alignCap);
          for (const step of commands) {
            if ("free" in step) {
              if (model.nodes.length === 1) continue;
              const node = model.nodes[step.free % (model.nodes.length - 1)]!;
              const pfn = step.free % 2 === 0 ? node.lo : node.hi; // any page of the range will do
              expect(domain.find(pfn)).toEqual({ first: node.lo, last: node.hi });
              domain.freeTree(pfn);
              model.free(pfn);
            } else if ("reserve" in step) {
              const hi = Math.min(2 ** 52 - 1, step.reserve + step.pages);
              domain.reserve(step.reserve, hi);
              model.reserve(step.reserve, hi);
            } else {
              const pfn = domain.allocateTree(step.size, step.limit, step.aligned);
              expect(pfn).toBe(model.allocate(step.size, step.limit, step.aligned));
              expect(counters.iovaSteps).toBe(model.steps);
            }
          }
          expect(domain.inspect()).toMatchObject(model.state);
          for (const { lo, hi } of model.nodes.slice(0, -1)) expect(domain.find(hi)).toEqual({ first: lo, last: hi });
        },
      ),
      { numRuns: 200 },
    );
  });

  test("holds 5000 ranges far apart and close together, and gives each back", () => {
    fc.assert(
      fc.property(fc.integer(), fc.constantFrom(M4, 2 ** 40), (seed, limit) => {
        const domain = new IovaAllocator();
        const model = new SlowWalk(1);
        const random = fc.sample(fc.integer({ min: 0, max: 0xffff }), { seed, numRuns: 7000 });
        const live: number[] = [];
        random.forEach((draw, i) => {
          if (i < 5000 || draw % 2 === 0) {
            const pages = 1 + (draw % 48);
            const pfn = domain.allocateTree(pages, limit, true);
            expect(pfn).toBe(model.allocate(pages, limit, true));
            live.push(pfn);
          } else {
            const [pfn] = live.splice(draw % live.length, 1);
            domain.freeTree(pfn!);
            model.free(pfn!);
          }
        });
        expect(domain.inspect()).toMatchObject(model.state);
        for (const pfn of live) domain.freeTree(pfn);
        expect(domain.inspect().ranges).toEqual([]);
      }),
      { numRuns: 4 },
    );
  });
});

describe("the range cache of an IOVA domain", () => {
  const cpus = 3;
  const command = fc.oneof(
    {
      weight: 8,
      arbitrary: fc.record({
        // a few, or enough to fill magazines and the depot
        times: fc.oneof(fc.integer({ min: 1, max: 4 }), fc.constantFrom(130, 400, 900)),
        size: fc.oneof(fc.constantFrom(1, 1, 2, 4), fc.integer({ min: 1, max: 40 })),
        limit: fc.oneof({ weight: 4, arbitrary: fc.constant(M4) }, fc.constantFrom(3, 0xfff, 2 ** 36 - 1)),
        drain: fc.boolean(),
      }),
    },
    {
      weight: 8,
      arbitrary: fc.record({
        free: fc.oneof(fc.integer({ min: 1, max: 4 }), fc.constantFrom(130, 400, 900)),
        from: fc.nat(),
        shorter: fc.boolean(),
      }),
    },
    { weight: 3, arbitrary: fc.record({ ms: fc.constantFrom(1, 99, 100, 350) }) },
    { weight: 3, arbitrary: fc.record({ cpu: fc.nat({ max: cpus - 1 }) }) },
    { weight: 1, arbitrary: fc.record({ offline: fc.nat({ max: cpus - 1 }) }) },
    { weight: 1, arbitrary: fc.record({ everything: fc.constant(true) }) },
  );

  // chance alone does not always fill a depot and then wait
  const often = { times: 900, size: 1, limit: M4, drain: false };
  const fewer = { free: 900, from: 0, shorter: false };
  const reachesTrimming = [often, often, fewer, fewer, { ms: 350 as const }];

  test("gives the ranges of plain stacks: magazines, depots, trimming by time, draining, several CPUs", () => {
    let trimmed = 0;
    fc.assert(
      fc.property(fc.array(command, { maxLength: 60, size: "max" }), (commands) => {
        const clock = new ManualClock();
        const model = new SlowSpace({ cpus, lazy: false, aperturePfn: 2 ** 52 - 1 });
        const domain = new IovaAllocator({ cpus, clock, currentCpu: () => model.cpu });
        const live: number[] = [];
        for (const step of commands) {
          if ("times" in step)
            for (let i = 0; i < step.times; i++) {
              const pfn = domain.allocateFast(step.size, step.limit, step.drain);
              expect(pfn).toBe(model.allocateFast(step.size, step.limit, step.drain));
              if (pfn === 0) break;
              live.push(pfn);
              expect(domain.allocatedAt(pfn)).toBe(model.allocated.get(pfn));
            }
          else if ("free" in step)
            for (let i = 0; i < step.free && live.length > 0; i++) {
              const [pfn] = live.splice((step.from + i * 7) % live.length, 1);
              const allocated = model.allocated.get(pfn!)!;
              const granules = step.shorter ? Math.ceil(allocated / 3) : allocated;
              domain.freeFast(pfn!, granules);
              model.freeFast(pfn!, granules);
              if (i === 0) expect(() => domain.freeFast(pfn!, granules)).toThrow(refused("NOT_ALLOCATED"));
            }
          else if ("ms" in step) {
            const before = model.walk.nodes.length;
            clock.advance(step.ms);
            model.clock.advance(step.ms);
            trimmed += before - model.walk.nodes.length;
          } else if ("cpu" in step) model.cpu = step.cpu;
          else if ("offline" in step) {
            domain.drainCpu(step.offline);
            model.drainCpu(step.offline);
          } else {
            domain.drainCache();
            model.drain();
          }
          const found = domain.inspect();
          expect(found).toEqual({ ...model.walk.state, cache: model.cache });
          // each taken range is in use or cached, and once only
          const cached = found.cache.flatMap(({ cpus, depot }) => [...cpus.flat(2), ...depot.flat()]);
          expect([...cached, ...live].sort((a, b) => a - b)).toEqual(found.ranges.map(([lo]) => lo));
        }
        for (const pfn of live) domain.freeFast(pfn, 1);
        domain.drainCache();
        expect(domain.inspect().ranges).toEqual([]);
        domain.stop();
        expect(clock.waiting).toBe(0);
      }),
      { numRuns: many(15), examples: [[reachesTrimming]] },
    );
    expect(trimmed).toBeGreaterThan(0);
  });

  test("falls back to the tree when there is no memory for one more magazine", () => {
    let memory = true;
    const domain = new IovaAllocator({ mayAllocateMagazine: () => memory });
    const pfns = Array.from({ length: 2 * 127 + 2 }, () => domain.allocateFast(1, M4, true));
    for (const pfn of pfns.slice(0, 2 * 127)) domain.freeFast(pfn, 1);
    memory = false;
    domain.freeFast(pfns[254]!, 1);
    expect(domain.inspect().ranges).toHaveLength(255); // 254 cached, one in use
    memory = true;
    domain.freeFast(pfns[255]!, 1);
    expect(domain.inspect().cache[0]!.depot).toHaveLength(1);
  });

  test("keeps a cached range that a reservation widened under the page it was freed by", () => {
    const domain = new IovaAllocator();
    const [pfn, other] = [domain.allocateFast(4, M4, true), domain.allocateFast(64, M4, true)];
    domain.freeFast(pfn, 4);
    expect(domain.reserve(pfn - 8, pfn)).toEqual({ first: pfn - 8, last: pfn + 3 });
    expect(domain.allocateFast(4, M4, true)).toBe(pfn);
    expect(domain.allocatedAt(pfn)).toBe(4);
    expect(domain.reserve(other - 1, other)).toEqual({ first: other - 1, last: other + 63 });
    expect(domain.allocatedAt(other)).toBe(64); // what its owner knows
    domain.freeFast(other, 64);
    expect(domain.find(other - 1)).toBeUndefined();
    domain.freeFast(pfn, 4);
    domain.drainCache();
    expect(domain.inspect().ranges).toEqual([]); // the reservation went with the range, as in Linux
  });

  test("knows each range by the page that its owner knows, through many that widened and went", () => {
    const domain = new IovaAllocator();
    const random = Random.fromSeed(3);
    const held: number[] = [];
    for (let step = 0; step < 4000; step++) {
      if (held.length < 40 || random.chance(1, 2)) held.push(domain.allocateTree(4, M4, true));
      else domain.freeTree(held.splice(random.below(held.length), 1)[0]!);
      const pfn = held[random.below(held.length)]!;
      if (random.chance(1, 4) && domain.find(pfn - 1) === undefined) domain.reserve(pfn - 1, pfn);
    }
    for (const pfn of held) {
      expect(domain.find(pfn)?.last).toBe(pfn + 3);
      domain.freeTree(pfn);
    }
    expect(domain.inspect().ranges).toEqual([]);
  });

  test("unchecked: passes over the freeing of what was never allocated", () => {
    const domain = new IovaAllocator({ checked: false });
    domain.freeFast(77, 1);
    domain.freeFast(77, 64);
    domain.release(77, 64);
    domain.recycle(77, 64);
    expect(domain.allocateFast(1, M4, true)).toBe(M4);
    expect(domain.inspect().ranges).toEqual([[M4, M4]]);
  });

  test("gives no cached range to a request that is larger than all the pages up to its limit", () => {
    const domain = new IovaAllocator();
    domain.freeFast(domain.allocateFast(32, M4, true), 32);
    expect(domain.allocateFast(32, 30, false)).toBe(0); // where an unsigned limit would wrap
    expect(domain.allocateFast(32, M4, false)).toBe(0xfffe0); // still cached
  });
});

describe("misuse of an IOVA domain", () => {
  test("is refused with an errno, and changes nothing", () => {
    const domain = new IovaAllocator();
    domain.reserve(0, 0xf);
    domain.reserve(0xfee00, 0xfeeff);
    const pfn = domain.allocateFast(4, M4, true);
    const before = domain.inspect();
    for (const granules of [0, -1, 1.5, Number.NaN, 2 ** 52]) {
      expect(() => domain.allocateFast(granules, M4, true)).toThrow(refused("SIZE"));
      expect(() => domain.allocateTree(granules, M4, true)).toThrow(refused("SIZE"));
    }
    for (const limit of [-1, 0.5, Number.NaN, Number.POSITIVE_INFINITY]) {
      expect(() => domain.allocateFast(1, limit, true)).toThrow(refused("LIMIT"));
      expect(() => domain.allocateTree(1, limit, true)).toThrow(refused("LIMIT"));
    }
    expect(() => domain.allocateFast(1.5, 100.5, true)).toThrow(refused("SIZE"));
    for (const wrong of [77, 0, -1, Number.NaN, 0xfee00, pfn + 1])
      expect(() => domain.freeFast(wrong, 1)).toThrow(refused("NOT_ALLOCATED")); // reservations too
    expect(() => domain.freeFast(77, 1)).toThrow(/0x4d.*never allocated/);
    for (const granules of [0, 1.5, 5]) expect(() => domain.freeFast(pfn, granules)).toThrow(refused("FREE_SIZE"));
    expect(() => domain.freeFast(pfn, 5)).toThrow(/5 granules.*4 were allocated/);
    for (const wrong of [77, -1, Number.NaN]) expect(() => domain.freeTree(wrong)).toThrow(refused("NOT_ALLOCATED"));
    for (const [lo, hi] of [
      [5, 4],
      [-1, 4],
      [0.5, 4],
      [1, 2 ** 52],
    ] as const)
      expect(() => domain.reserve(lo, hi)).toThrow(refused("RESERVATION"));
    expect(domain.inspect()).toEqual(before);
    domain.freeFast(pfn, 4);
    expect(() => domain.freeFast(pfn, 4)).toThrow(refused("NOT_ALLOCATED"));
    expect(() => domain.freeTree(pfn)).toThrow(refused("NOT_ALLOCATED")); // it is cached
    domain.freeTree(3); // reservations may go back this way
    domain.freeTree(0xfeeff);
    expect(domain.inspect().ranges).toEqual([[pfn, pfn + 3]]);
  });

  test("is refused at construction", () => {
    for (const granule of [0, 2048, 5000, 131072])
      expect(() => new IovaAllocator({ granule })).toThrow(refused("GRANULE"));
    for (const startPfn of [0, -1, 1.5, 2 ** 52])
      expect(() => new IovaAllocator({ firstGranule: startPfn })).toThrow(refused("START"));
    for (const cpus of [0, 1.5, -1, 8193, 2 ** 31, Number.NaN])
      expect(() => new IovaAllocator({ cpus })).toThrow(refused("CPUS"));
    for (const alignCap of [0, 3, 0.5, -4, Number.NaN, 2 ** 60])
      expect(() => new IovaAllocator({ alignCap })).toThrow(refused("ALIGN_CAP"));
  });
});

test.each([1, 2, 4, 32])(
  "a cached range of %i granules is given out up to the device's limit, and not one above",
  (size) => {
    const allocator = new IovaAllocator();
    const limit = 0x9_0000;
    const pfn = allocator.allocateFast(size, limit, true);
    expect(pfn + size - 1).toBeLessThanOrEqual(limit);
    allocator.freeFast(pfn, size);
    const last = pfn + size - 1;
    const below = allocator.allocateFast(size, last - 1, true); // the cached one ends one granule too high
    expect(below + size - 1).toBeLessThan(last);
    expect(allocator.allocateFast(size, last, true)).toBe(pfn); // for this one it is right
  },
);
