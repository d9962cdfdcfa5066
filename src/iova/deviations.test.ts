/** The named deviations from Linux, each with its gain, counted exactly: the same load without and with it. */
import { describe, expect, test } from "vitest";
import { ManualClock } from "../../test/models/manual-clock.ts";
import { Counters, Random } from "../base/index.ts";
import { IovaAllocator } from "./allocator.ts";
import { type IovaDevice, IovaSpace } from "./space.ts";

const M4 = 0xfffff; // last page below 4 GiB
const pci = (): IovaDevice => ({ prefer32: true, busLimitPfn: 0 });
const pagesTaken = (domain: IovaAllocator): number =>
  domain.inspect().ranges.reduce((sum, [lo, hi]) => sum + hi - lo + 1, 0);

describe("the named deviations of an IOVA space", () => {
  test("freeAllocatedSize: 1000 requests of 16 pages that map 2 take 16 pages of address space, not 16000", () => {
    const taken = (freeAllocatedSize: boolean, checked = true) => {
      const space = new IovaSpace(new IovaAllocator({ checked }), { freeAllocatedSize });
      for (let i = 0; i < 1000; i++) space.free(space.allocate(16, M4, pci()), 2);
      return pagesTaken(space.domain);
    };
    expect([taken(false), taken(true), taken(true, false)]).toEqual([16_000, 16, 16]);
  });

  test("flushOnExhaustion: of 100 requests for half of a 24-bit space, 100 succeed, not 50", () => {
    const run = (flushOnExhaustion: boolean) => {
      let flushes = 0;
      const clock = new ManualClock();
      const lazy = { clock, flushDomain: () => void flushes++, freeTables: () => {} };
      const space = new IovaSpace(new IovaAllocator({ clock }), { lazy, flushOnExhaustion });
      let failed = 0;
      for (let i = 0; i < 100; i++) {
        const pfn = space.allocate(0x800, 0xfff, pci());
        if (pfn === 0) failed++;
        else space.queue(pfn, 0x800);
        clock.advance(5); // the timer flushes after 10
      }
      return { failed, flushes };
    };
    expect([run(false), run(true)]).toEqual([
      { failed: 50, flushes: 50 },
      { failed: 0, flushes: 100 },
    ]);
  });

  test("recover32: after a full moment, 100 of 100 addresses are below 4 GiB again, not none", () => {
    const below4G = (recover32?: number) => {
      const space = new IovaSpace(new IovaAllocator(), recover32 === undefined ? {} : { recover32 });
      const device = pci();
      const fill = Array.from({ length: 4 }, () => space.allocate(0x40000, 2 ** 36 - 1, device));
      for (const pfn of fill) space.free(pfn, 0x40000);
      const pfns = Array.from({ length: 100 }, () => space.allocate(64, 2 ** 36 - 1, device));
      return pfns.filter((pfn) => pfn !== 0 && pfn <= M4).length;
    };
    expect([below4G(), below4G(3), below4G(4)]).toEqual([0, 100, 0]); // three of the four were freed there
  });

  test("reserveEveryDevice: no address lies in the second device's window, not 256 of 300", () => {
    const inWindow = (reserveEveryDevice: boolean) => {
      const space = new IovaSpace(new IovaAllocator(), { reserveEveryDevice });
      space.join([]);
      space.join([{ first: 0xfff00, last: 0xfffff }]);
      const pfns = Array.from({ length: 300 }, () => space.allocate(1, M4, pci()));
      return pfns.filter((pfn) => pfn >= 0xfff00).length;
    };
    expect([inWindow(false), inWindow(true)]).toEqual([256, 0]);
  });

  test("alignCap: more requests of 257 to 511 pages fit in a 24-bit space", () => {
    const room = (alignCap?: number) => {
      const space = new IovaSpace(new IovaAllocator(alignCap === undefined ? {} : { alignCap }));
      const random = Random.fromSeed(1);
      let count = 0;
      while (space.allocate(random.between(257, 511), 0xfff, pci()) !== 0) count++;
      return count;
    };
    expect([room(), room(256), room(16), room(1)]).toEqual([7, 7, 10, 10]);
  });

  test("largestCached: 1000 ranges of 100 pages that come and go are found without a walk, not in 6.2 steps each", () => {
    const steps = (largestCached?: number) => {
      const counters = new Counters();
      const space = new IovaSpace(
        new IovaAllocator({ counters, countSteps: true, ...(largestCached !== undefined && { largestCached }) }),
      );
      const held = Array.from({ length: 50 }, () => space.allocate(100, M4, pci()));
      const before = counters.iovaSteps;
      for (let i = 0; i < 1000; i++) {
        const at = (i * 7) % held.length;
        space.free(held[at]!, 100);
        held[at] = space.allocate(100, M4, pci());
      }
      expect(new Set(held).size).toBe(50);
      return counters.iovaSteps - before;
    };
    expect([steps(), steps(64), steps(128), steps(32_768)]).toEqual([6160, 6160, 0, 0]);
    for (const wrong of [16, 48, 65_536, Number.NaN])
      expect(() => new IovaAllocator({ largestCached: wrong })).toThrow(
        expect.objectContaining({ code: "ERR_DMA_IOVA_CACHED" }),
      );
  });
});
