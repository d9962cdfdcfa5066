/**
 * The library's door under callers without types: anything may be passed for anything, and the answer is a DmaError or the right
 * thing; never a TypeError from inside, a hang, or memory without end. Nothing is held afterwards.
 */
import { describe, expect, test } from "vitest";
import { DmaError, PhysAddr } from "../base/index.ts";
import { Dma } from "../dma/index.ts";
import { SimulatedUnit, VirtualClock } from "../hosts/simulated/index.ts";
import { DmaDomain } from "../iommu/index.ts";
import { IovaAllocator } from "../iova/index.ts";
import { vtdSecondStage } from "../layouts/pagetable/index.ts";

const WRONG: readonly [string, unknown][] = [
  ["null", null],
  ["undefined", undefined],
  ["a bigint", 4096n],
  ["a symbol", Symbol("x")],
  ["a text", "4096"],
  ["an object", {}],
  ["an object without a prototype", Object.create(null)],
  ["an array", []],
  ["an array of nothing", [null, undefined]],
  ["a function", () => 1],
  ["true", true],
  ["NaN", Number.NaN],
  ["infinity", Number.POSITIVE_INFINITY],
  ["-1", -1],
  ["2^53", 2 ** 53],
];

const stand = () => {
  const domain = new DmaDomain({
    layout: vtdSecondStage(),
    unit: new SimulatedUnit(),
    clock: new VirtualClock(),
    mode: "strict",
  });
  return { domain, dma: new Dma({ domain }) };
};

const PHYS = PhysAddr(0x5000);
const RIGHT = [PHYS, 4096, "to-device"] as const;
type Call = (dma: Dma, wrong: never) => unknown;

/** Each argument of each call, wrong while the others are right. */
const CALLS: readonly [string, Call][] = [
  ["map, the address", (dma, wrong) => dma.map(wrong, 4096, "to-device").unmap()],
  ["map, the length", (dma, wrong) => dma.map(PHYS, wrong, "to-device").unmap()],
  ["map, the direction", (dma, wrong) => dma.map(PHYS, 4096, wrong).unmap()],
  ["mapPhys, the address", (dma, wrong) => dma.unmapPhys(dma.mapPhys(wrong, 4096, "to-device"), 4096, "to-device")],
  ["mapPhys, the length", (dma, wrong) => dma.mapPhys(PHYS, wrong, "to-device")],
  ["mapPhys, the direction", (dma, wrong) => dma.mapPhys(PHYS, 4096, wrong)],
  ["mapVecs, the list", (dma, wrong) => dma.mapVecs(wrong, "to-device")],
  ["mapVecs, a piece", (dma, wrong) => dma.mapVecs([wrong], "to-device")],
  ["mapVecs, the direction", (dma, wrong) => dma.mapVecs([{ phys: PHYS, length: 4096 }], wrong)],
  ["tryReserveIova, what is asked", (dma, wrong) => dma.tryReserveIova(wrong)?.destroy()],
  ["tryReserveIova, the length", (dma, wrong) => dma.tryReserveIova({ length: wrong })?.destroy()],
  ["link, the offset", (dma, wrong) => withRange(dma, (range) => range.link(wrong, ...RIGHT))],
  ["link, the address", (dma, wrong) => withRange(dma, (range) => range.link(0, wrong, 4096, "to-device"))],
  ["link, the length", (dma, wrong) => withRange(dma, (range) => range.link(0, PHYS, wrong, "to-device"))],
  ["link, the direction", (dma, wrong) => withRange(dma, (range) => range.link(0, PHYS, 4096, wrong))],
  ["linkVecs, the list", (dma, wrong) => withRange(dma, (range) => range.linkVecs(0, wrong, "to-device"))],
  ["linkVecs, a piece", (dma, wrong) => withRange(dma, (range) => range.linkVecs(0, [wrong], "to-device"))],
  ["unlink, the offset", (dma, wrong) => withRange(dma, (range) => range.unlink(wrong, 4096))],
  ["unlink, the length", (dma, wrong) => withRange(dma, (range) => range.unlink(0, wrong))],
];

function withRange(dma: Dma, use: (range: NonNullable<ReturnType<Dma["tryReserveIova"]>>) => unknown): void {
  const range = dma.tryReserveIova({ length: 16_384 })!;
  try {
    use(range);
  } finally {
    range.destroy();
  }
}

describe.each(CALLS)("%s", (_name, call) => {
  test.each(WRONG)("may be %s", (_what, wrong) => {
    const { dma, domain } = stand();
    let error: unknown;
    try {
      call(dma, wrong as never);
    } catch (thrown) {
      error = thrown;
    }
    if (error !== undefined) {
      expect(error).toBeInstanceOf(DmaError);
      expect(domain.counters.iovaFrees).toBe(domain.counters.iovaAllocations);
      expect(domain.counters.leavesCleared).toBe(domain.counters.leavesWritten);
    }
  });
});

test.each(WRONG)("options may be %s", (_what, wrong) => {
  for (const make of [
    () => new IovaAllocator({ cpus: wrong as never }),
    () => new IovaAllocator({ granule: wrong as never }),
    () => new Dma({ domain: wrong as never }),
    () =>
      new DmaDomain({
        layout: vtdSecondStage(),
        unit: new SimulatedUnit(),
        clock: new VirtualClock(),
        mode: wrong as never,
      }),
  ]) {
    try {
      make();
    } catch (error) {
      expect(error).toBeInstanceOf(DmaError);
    }
  }
});
