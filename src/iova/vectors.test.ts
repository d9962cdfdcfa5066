/** The named vectors of the specification: addresses A to M, flush queue Q1 to Q5. */
import { describe, expect, test } from "vitest";
import { ManualClock } from "../../test/models/manual-clock.ts";
import { Counters, GiB, KiB, MiB } from "../base/index.ts";
import { IovaAllocator, type IovaAllocatorOptions } from "./allocator.ts";
import { type IovaDevice, IovaSpace } from "./space.ts";

const MASK64 = 2 ** 52 - 1;

/** A fresh space in bytes: 64-bit PCI device, aperture of 48 bits, unless said. */
function fresh(given: { domain?: IovaAllocatorOptions; maskPfn?: number; lastGranule?: number; pci?: boolean } = {}) {
  const domain = new IovaAllocator(given.domain);
  const { granule } = domain;
  const space = new IovaSpace(domain, { lastGranule: given.lastGranule ?? 2 ** 48 / granule - 1 });
  const device: IovaDevice = { prefer32: given.pci ?? true, busLimitPfn: 0 };
  const maskPfn = given.maskPfn ?? MASK64;
  return {
    domain,
    space,
    device,
    /** Addresses of ranges of these sizes. */
    alloc: (...sizes: number[]) => sizes.map((size) => granule * space.allocate(size / granule, maskPfn, device)),
    free: (address: number, size: number) => space.free(address / granule, size / granule),
  };
}
const K4 = 4 * KiB;

describe("IOVA vector", () => {
  test("A: mixed sizes go downward, aligned to the next power of two", () => {
    const { domain, alloc } = fresh();
    expect(alloc(K4, K4, 12 * KiB, K4, 2 * MiB, K4, 64 * KiB, 200 * KiB, K4)).toEqual([
      0xfffff000, 0xffffe000, 0xffff8000, 0xffff7000, 0xffc00000, 0xffbff000, 0xffbe0000, 0xffb80000, 0xffb7f000,
    ]);
    expect(domain.find(0xffff9)).toEqual({ first: 0xffff8, last: 0xffffb }); // 3 granules became 4
    expect(domain.find(0xffb80)).toEqual({ first: 0xffb80, last: 0xffbb1 }); // 50 stay 50
  });

  test("B: the hole above a reservation is not looked at again", () => {
    const { domain, alloc } = fresh();
    domain.reserve(0xfee00, 0xfeeff);
    expect(alloc(16 * MiB, MiB, 16 * MiB, K4, K4)).toEqual([
      0xff000000, 0xfef00000, 0xfd000000, 0xfcfff000, 0xfcffe000,
    ]);
  });

  test("C: cached ranges come back last in, first out; then the tree is asked", () => {
    const { alloc, free } = fresh();
    const [first, second, , fourth] = alloc(K4, K4, K4, K4);
    for (const address of [second!, fourth!, first!]) free(address, K4);
    expect(alloc(K4, K4, K4, K4)).toEqual([0xfffff000, 0xffffc000, 0xffffe000, 0xffffb000]);
  });

  test("D: each size class has its own cache", () => {
    const { alloc, free } = fresh();
    expect(alloc(12 * KiB)).toEqual([0xffffc000]);
    free(0xffffc000, 12 * KiB);
    expect(alloc(8 * KiB, 16 * KiB)).toEqual([0xffffa000, 0xffffc000]);
  });

  test("E: above 32 granules nothing is cached or rounded up", () => {
    const { alloc, free } = fresh();
    expect(alloc(36 * K4, K4)).toEqual([0xfffc0000, 0xfffbf000]);
    free(0xfffc0000, 36 * K4);
    expect(alloc(36 * K4, K4)).toEqual([0xfffc0000, 0xfffbe000]);
  });

  test("F: a device that failed below 4 GiB once does not return there; another one does", () => {
    const { space, alloc, free } = fresh();
    expect(alloc(GiB, GiB, GiB, GiB, GiB, K4)).toEqual([
      0xc0000000, 0x80000000, 0x40000000, 0xffffc0000000, 0xffff80000000, 0xffff7ffff000,
    ]);
    free(0xc0000000, GiB);
    expect(alloc(GiB)).toEqual([0xffff00000000]);
    expect(space.allocate(GiB / K4, 0xfffff, { prefer32: true, busLimitPfn: 0 }) * K4).toBe(0xc0000000);
  });

  test("G: a 24-bit device", () => {
    expect(fresh({ maskPfn: 0xfff }).alloc(K4, 8 * KiB, K4)).toEqual([0xfff000, 0xffc000, 0xffb000]);
  });

  test("H: a device that is not PCI starts at its mask", () => {
    const { alloc } = fresh({ pci: false, maskPfn: 2 ** 36 - 1 });
    expect(alloc(K4, 2 * MiB, K4)).toEqual([0xfffffffff000, 0xffffffc00000, 0xffffffbff000]);
  });

  test("I: granules of 64 KiB", () => {
    const { alloc } = fresh({ domain: { granule: 64 * KiB }, maskPfn: 2 ** 48 - 1 });
    expect(alloc(64 * KiB, 128 * KiB, 64 * KiB)).toEqual([0xffff0000, 0xfffc0000, 0xfffb0000]);
  });

  test("J: a size that failed below 4 GiB fails again without a step, until something is freed there", () => {
    const counters = new Counters();
    const { domain, alloc, free } = fresh({ maskPfn: 0xfffff, domain: { counters, countSteps: true } });
    const hint = () => domain.inspect().max32AllocSize;
    expect(alloc(2 * GiB, 2 * GiB)).toEqual([0x80000000, 0]);
    expect(hint()).toBe(0x80000);
    const before = counters.iovaSteps;
    expect(alloc(2 * GiB)).toEqual([0]);
    expect(counters.iovaSteps).toBe(before);
    expect(alloc(GiB)).toEqual([0x40000000]);
    free(0x80000000, 2 * GiB);
    expect(hint()).toBe(0x100000);
    expect(alloc(2 * GiB)).toEqual([0x80000000]);
  });

  test("K: a search starts above the range that was freed", () => {
    const { domain, alloc } = fresh();
    const size = 64 * K4;
    expect(alloc(size, size, size, size)).toEqual([0xfffc0000, 0xfff80000, 0xfff40000, 0xfff00000]);
    domain.freeTree(0xfff80);
    expect(domain.inspect().cached32).toBe(0xfffc0);
    expect(alloc(size, size)).toEqual([0xfff80000, 0xffec0000]);
  });

  test("L: without the 32-bit attempt a PCI device starts at the end of the aperture", () => {
    const { alloc } = fresh({ pci: false, lastGranule: 2 ** 35 - 1 });
    expect(alloc(K4, GiB)).toEqual([0x7ffffffff000, 0x7fff80000000]);
  });

  test("M: a range freed as a shorter one goes to the smaller class, and its rest is lost", () => {
    const { alloc, free } = fresh();
    expect(alloc(64 * KiB)).toEqual([0xffff0000]);
    free(0xffff0000, 8 * KiB);
    expect(alloc(8 * KiB, 64 * KiB)).toEqual([0xffff0000, 0xfffe0000]);
  });
});

/** A lazy space with 4 KiB ranges, and what it did. */
function lazy(cpus = 1) {
  let cpu = 0;
  let flushes = 0;
  let ids = 0;
  const left: number[] = [];
  const clock = new ManualClock();
  const currentCpu = () => cpu;
  const domain = new IovaAllocator({ clock, cpus, currentCpu });
  const space = new IovaSpace<number>(domain, {
    lazy: { cpus, currentCpu, clock, flushDomain: () => void flushes++, freeTables: (id) => void left.push(id) },
  });
  const device: IovaDevice = { prefer32: true, busLimitPfn: 0 };
  return {
    clock,
    space,
    device,
    left,
    flushes: () => flushes,
    /** Allocates and unmaps one range on that CPU. */
    unmap(onCpu = 0) {
      cpu = onCpu;
      space.queue(space.allocate(1, 0xfffff, device), 1, ids++);
    },
  };
}

describe("flush queue vector", () => {
  test("Q1: one unmap is flushed by the timer, 10 ms later", () => {
    const { clock, space, left, flushes, unmap } = lazy();
    unmap();
    clock.advance(9.99);
    expect([flushes(), left]).toEqual([0, []]);
    clock.advance(0.01);
    expect([flushes(), left]).toEqual([1, [0]]);
    expect(space.flushQueue!.state).toEqual({ flushStart: 1, flushFinish: 1, rings: [[1, 1]] });
    clock.advance(1000);
    expect(flushes()).toBe(1);
  });

  test("Q2: the 256th unmap finds the ring full, flushes, and waits for the next flush itself", () => {
    const { clock, left, flushes, unmap } = lazy();
    for (let i = 0; i < 255; i++) unmap();
    expect([flushes(), left.length]).toEqual([0, 0]);
    clock.advance(1);
    unmap();
    expect([flushes(), left.length]).toEqual([1, 255]);
    clock.advance(9);
    expect([flushes(), left.length]).toEqual([2, 256]);
  });

  test("Q3: the timer runs from the first entry; later ones share its flush", () => {
    const { clock, left, flushes, unmap } = lazy();
    unmap();
    clock.advance(9.9);
    unmap();
    clock.advance(0.1);
    expect([flushes(), left]).toEqual([1, [0, 1]]);
  });

  test("Q4: a flush by one CPU's full ring frees another CPU's entries at its next call", () => {
    const run = (next: (queue: ReturnType<typeof lazy>) => void) => {
      const queue = lazy(2);
      queue.unmap(0);
      queue.clock.advance(5);
      for (let i = 0; i < 256; i++) queue.unmap(1);
      expect([queue.flushes(), queue.left.length, queue.left.includes(0)]).toEqual([1, 255, false]);
      next(queue);
      return [queue.flushes(), queue.left.length, queue.left.includes(0)];
    };
    expect(run(({ unmap }) => unmap(0))).toEqual([1, 256, true]);
    expect(run(({ clock }) => clock.advance(5))).toEqual([2, 257, true]);
  });

  test("Q5: an allocation fails although what is parked would do", () => {
    const { clock, space, device } = lazy();
    const pfn = space.allocate(0x800, 0xfff, device);
    space.queue(pfn, 0x800);
    expect(space.allocate(0x800, 0xfff, device)).toBe(0);
    clock.advance(10);
    expect(space.allocate(0x800, 0xfff, device)).toBe(pfn);
  });
});
