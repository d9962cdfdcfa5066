import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { many } from "../../test/effort.ts";
import { ManualClock } from "../../test/models/manual-clock.ts";
import { type SlowDevice, SlowSpace } from "../../test/models/slow-space.ts";
import { IovaAllocator } from "./allocator.ts";
import { type IovaDevice, IovaSpace } from "./space.ts";

const M4 = 0xfffff; // last page below 4 GiB
const pci = (): IovaDevice => ({ prefer32: true, busLimitPfn: 0 });
const refused = (code: string, errno = "EINVAL") => expect.objectContaining({ code: `ERR_DMA_IOVA_${code}`, errno });

const cpus = 2;
const times = fc.oneof(fc.integer({ min: 1, max: 5 }), fc.constantFrom(130, 300));
const command = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record({
      alloc: times,
      size: fc.oneof(fc.constantFrom(1, 2, 5, 32, 33, 512), fc.integer({ min: 1, max: 0x30000 })),
      mask: fc.constantFrom(0xfff, M4, 2 ** 36 - 1, 2 ** 52 - 1),
      device: fc.nat({ max: 2 }),
    }),
  },
  { weight: 4, arbitrary: fc.record({ queue: times, from: fc.nat(), shorter: fc.boolean() }) },
  { weight: 2, arbitrary: fc.record({ free: times, from: fc.nat(), shorter: fc.boolean() }) },
  { weight: 2, arbitrary: fc.record({ ms: fc.constantFrom(1, 4, 9.9, 10, 120, 1000) }) },
  { weight: 2, arbitrary: fc.record({ cpu: fc.nat({ max: cpus - 1 }) }) },
);
const deviations = fc.record({
  freeAllocatedSize: fc.boolean(),
  flushOnExhaustion: fc.boolean(),
  recover32: fc.constantFrom(undefined, 1, 40),
  alignCap: fc.constantFrom(undefined, 16, 512),
});

describe("an IOVA space under load", () => {
  for (const mode of ["strict", "per-cpu", "single"] as const)
    test(`${mode}: gives the addresses of the slow space, whatever deviations are on; no range or table page leaves the queue before a flush that started after it came`, () => {
      const seen = { left: 0, flushes: 0, exhausted: 0 };
      fc.assert(
        fc.property(deviations, fc.array(command, { maxLength: 60, size: "max" }), (deviation, commands) => {
          const { recover32, alignCap, ...switches } = deviation;
          const given = { ...switches, ...(recover32 !== undefined && { recover32 }) };
          const lastGranule = 2 ** 40 - 1;
          const lazy = mode !== "strict";
          const model = new SlowSpace({
            cpus,
            lazy,
            aperturePfn: lastGranule,
            ...given,
            ...(lazy && { variant: mode }),
            ...(alignCap && { alignCap }),
          });
          const clock = new ManualClock();
          const currentCpu = () => model.cpu;
          const domain = new IovaAllocator({ cpus, clock, currentCpu, ...(alignCap && { alignCap }) });
          let started = 0;
          let finished = 0;
          /** Ids in the queue: pages, and how many flushes had started when they came. */
          const parked = new Map<number, { pfn: number; startedBefore: number }>();
          const left: number[] = [];
          const space = new IovaSpace<number>(domain, {
            lastGranule,
            ...given,
            ...(lazy && {
              lazy: {
                variant: mode,
                cpus,
                currentCpu,
                clock,
                flushDomain: () => {
                  started++;
                  finished++;
                },
                freeTables: (id: number) => {
                  expect(finished).toBeGreaterThan(parked.get(id)!.startedBefore);
                  parked.delete(id);
                  left.push(id);
                },
              },
            }),
          });
          const live: number[] = [];
          const devices: IovaDevice[] = [
            pci(),
            { prefer32: false, busLimitPfn: 0 },
            { prefer32: true, busLimitPfn: 2 ** 34 },
          ];
          const slowDevices: SlowDevice[] = devices.map((device) => ({ ...device }));
          let ids = 0;
          for (const step of commands) {
            if ("alloc" in step)
              for (let i = 0; i < step.alloc; i++) {
                const pfn = space.allocate(step.size, step.mask, devices[step.device]!);
                expect(pfn).toBe(model.allocate(step.size, step.mask, slowDevices[step.device]!));
                if (pfn === 0) seen.exhausted++;
                if (pfn === 0) break;
                live.push(pfn);
              }
            else if ("ms" in step) {
              clock.advance(step.ms);
              model.clock.advance(step.ms);
            } else if ("cpu" in step) model.cpu = step.cpu;
            else
              for (let i = 0; i < ("free" in step ? step.free : step.queue) && live.length > 0; i++) {
                const [pfn] = live.splice((step.from + i * 11) % live.length, 1);
                const allocated = model.allocated.get(pfn!)!;
                const granules = step.shorter ? Math.ceil(allocated / 3) : allocated;
                if ("free" in step) {
                  space.free(pfn!, granules);
                  model.free(pfn!, granules);
                } else {
                  const id = ids++;
                  if (lazy) parked.set(id, { pfn: pfn!, startedBefore: started });
                  space.queue(pfn!, granules, id);
                  model.queue(pfn!, granules, id);
                  if (i === 0) expect(() => space.queue(pfn!, granules, id)).toThrow(refused("NOT_ALLOCATED"));
                }
              }
            expect(devices).toEqual(slowDevices);
            expect([started, finished, left]).toEqual([model.flushes, model.flushes, model.left]);
            const found = domain.inspect();
            expect(found).toEqual({ ...model.walk.state, cache: model.cache });
            // each taken range is in use, cached or parked, and once only
            const cached = found.cache.flatMap(({ cpus, depot }) => [...cpus.flat(2), ...depot.flat()]);
            const waiting = [...parked.values()].map(({ pfn }) => pfn);
            expect([...cached, ...live, ...waiting].sort((a, b) => a - b)).toEqual(found.ranges.map(([lo]) => lo));
          }
          seen.left += left.length;
          seen.flushes += started;
          for (const pfn of live) space.free(pfn, 1);
          // the end: everything that waits leaves, without a flush, and no timer stays
          for (const entry of parked.values()) entry.startedBefore = -1;
          space.drain();
          expect([started, parked.size, clock.waiting]).toEqual([model.flushes, 0, 0]);
          domain.drainCache();
          expect(domain.inspect().ranges).toEqual([]);
        }),
        { numRuns: many(25) },
      );
      // the load does reach what it is for
      expect(seen.exhausted).toBeGreaterThan(0);
      if (mode !== "strict") expect(Math.min(seen.left, seen.flushes)).toBeGreaterThan(0);
    });

  test("single queue: 32767 entries wait, the next one flushes and frees them all", () => {
    let flushes = 0;
    const left: number[] = [];
    const clock = new ManualClock();
    const domain = new IovaAllocator({ clock });
    const space = new IovaSpace<number>(domain, {
      lazy: { variant: "single", clock, flushDomain: () => void flushes++, freeTables: (id) => void left.push(id) },
    });
    const device = pci();
    const pfns = Array.from({ length: 32768 }, () => space.allocate(1, M4, device));
    for (let id = 0; id < 32767; id++) space.queue(pfns[id]!, 1, id);
    expect([flushes, left.length]).toEqual([0, 0]);
    space.queue(pfns[32767]!, 1, 32767);
    expect([flushes, left.length]).toEqual([1, 32767]);
    clock.advance(999.9);
    expect([flushes, left.length]).toEqual([1, 32767]);
    clock.advance(0.1);
    expect([flushes, left.length]).toEqual([2, 32768]);
    expect(left).toEqual(pfns.map((_, id) => id)); // in the order they came
  });

  test("draining frees table pages and ranges that wait on every CPU, without a flush", () => {
    let cpu = 0;
    const freed: string[] = [];
    const clock = new ManualClock();
    const currentCpu = () => cpu;
    const domain = new IovaAllocator({ clock, cpus: 2, currentCpu });
    const flushDomain = () => expect.unreachable("the domain is detached");
    const space = new IovaSpace<string>(domain, {
      lazy: { cpus: 2, currentCpu, clock, flushDomain, freeTables: (tables) => void freed.push(tables) },
    });
    const pfns = [40, 40, 40].map((size) => space.allocate(size, M4, pci()));
    space.queue(pfns[0]!, 40, "tables of the first");
    cpu = 1;
    space.queue(pfns[1]!, 40, "tables of the second");
    space.queue(pfns[2]!, 40); // an unmap that took no table out
    space.drain();
    expect(freed).toEqual(["tables of the first", "tables of the second"]);
    expect(domain.inspect().ranges).toEqual([]);
    expect(clock.waiting).toBe(0);
    clock.advance(1000);
    space.drain(); // a second time does nothing
    expect(freed).toHaveLength(2);
  });
});

describe("misuse of an IOVA space", () => {
  const make = (lazy: boolean) => {
    const clock = new ManualClock();
    const domain = new IovaAllocator({ clock });
    return { domain, space: new IovaSpace(domain, lazy ? { lazy: { clock, flushDomain() {}, freeTables() {} } } : {}) };
  };
  for (const lazy of [false, true])
    test(`${lazy ? "lazy" : "strict"}: is refused with an errno, and changes nothing`, () => {
      const { domain, space } = make(lazy);
      const device = pci();
      const pfn = space.allocate(3, M4, device); // 4 granules: rounded up
      const before = [domain.inspect(), space.flushQueue?.state, { ...device }];
      for (const size of [0, -1, 1.5, Number.NaN, 2 ** 52])
        expect(() => space.allocate(size, 2 ** 52 - 1, device)).toThrow(refused("SIZE"));
      for (const limit of [-1, 1.5, Number.NaN])
        expect(() => space.allocate(1, limit, device)).toThrow(refused("LIMIT"));
      for (const giveBack of [
        (at: number, size: number) => space.free(at, size),
        (at: number, size: number) => space.queue(at, size),
      ]) {
        for (const size of [0, 1.5, 5]) expect(() => giveBack(pfn, size)).toThrow(refused("FREE_SIZE"));
        for (const at of [0, 77, pfn + 1]) expect(() => giveBack(at, 1)).toThrow(refused("NOT_ALLOCATED"));
      }
      expect([domain.inspect(), space.flushQueue?.state, device]).toEqual(before);
      space.queue(pfn, 3);
      expect(() => space.queue(pfn, 3)).toThrow(refused("NOT_ALLOCATED"));
      expect(() => space.free(pfn, 3)).toThrow(refused("NOT_ALLOCATED"));
    });

  test("a size above the limit, or as large as the space, is no error: there is no room", () => {
    const { domain, space } = make(false);
    expect(space.allocate(0x1000, 0xfff, pci())).toBe(0);
    expect(space.allocate(domain.lastGranule, domain.lastGranule, pci())).toBe(0);
    expect(make(false).space.allocate(1, 0, pci())).toBe(0);
    expect(make(false).space.allocate(1, 1, pci())).toBe(1);
  });

  test("a join with one wrong region reserves none of them", () => {
    const { domain, space } = make(false);
    expect(() =>
      space.join([
        { first: 5, last: 9 },
        { first: 9, last: 5 },
      ]),
    ).toThrow(refused("RESERVATION"));
    expect(() => space.join([{ first: 5, last: 9 }], { granule: 65536, firstGranule: 1 })).toThrow(
      refused("GEOMETRY", "EFAULT"),
    );
    expect(() => space.join([{ first: 5, last: 9 }], { granule: 4096, firstGranule: 2 })).toThrow(
      refused("GEOMETRY", "EFAULT"),
    );
    expect(domain.inspect().ranges).toEqual([]);
    space.join([{ first: 5, last: 9 }], { granule: 4096, firstGranule: 1 }); // the first that joins, still
    expect(domain.inspect().ranges).toEqual([[5, 9]]);
  });
});
