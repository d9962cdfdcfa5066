/** What a caller without types may pass: numbers that are none, and things that are something else. */
import { describe, expect, test } from "vitest";
import { PhysAddr } from "../base/index.ts";
import { SimulatedUnit, VirtualClock } from "../hosts/simulated/index.ts";
import { DmaDomain } from "../iommu/index.ts";
import { vtdSecondStage } from "../layouts/pagetable/index.ts";
import { Dma, type DmaOptions } from "./index.ts";

function stand(options: DmaOptions = {}) {
  const domain = new DmaDomain({
    layout: vtdSecondStage(),
    unit: new SimulatedUnit(),
    clock: new VirtualClock(),
    mode: "strict",
  });
  return { domain, dma: new Dma({ domain, ...options }) };
}

/** A range of four pages of which the first is linked. */
function range(options: DmaOptions = {}) {
  const { dma, domain } = stand(options);
  const made = dma.tryReserveIova({ length: 16_384 })!;
  made.link(0, PhysAddr(0x5000), 4096, "to-device");
  return { made, domain };
}

const PHYS = PhysAddr(0x9000);
const refused = (code: string, ...words: string[]) =>
  expect.objectContaining({
    code,
    errno: "EINVAL",
    message: expect.stringMatching(new RegExp(words.join(".*"))),
  });

describe("a reservation", () => {
  test.each([1.5, -1, Number.NaN, 2 ** 53, "4096"])(
    "whose memory lies %s bytes into its granule is refused",
    (physOffset) => {
      const { dma, domain } = stand();
      expect(() => dma.tryReserveIova({ length: 4096, physOffset: physOffset as number })).toThrow(
        refused("ERR_DMA_OFFSET", "physOffset"),
      );
      expect(domain.counters.iovaAllocations).toBe(0);
    },
  );

  test.each([1.5, -1, Number.NaN, 2 ** 53])("that can grow to %s bytes is refused", (capacity) => {
    const { dma, domain } = stand();
    expect(() => dma.tryReserveIova({ length: 4096, capacity })).toThrow(refused("ERR_DMA_LENGTH"));
    expect(domain.counters.iovaAllocations).toBe(0);
  });
});

describe("a range", () => {
  test.each([
    [4096, 1.5],
    [4096.5, 4096],
    [Number.NaN, 4096],
    [4096, Number.NaN],
    [4096, "4096"],
    [-4096, 4096],
    [4096, 16_384],
  ])("refuses to link at offset %s %s bytes, and says so of a link", (offset, length) => {
    const { made } = range();
    expect(() => made.link(offset, PHYS, length as number, "to-device")).toThrow(
      refused("ERR_DMA_LINK_RANGE", "cannot link"),
    );
    expect(() => made.linkVecs(offset, [{ phys: PHYS, length: length as number }], "to-device")).toThrow(
      expect.objectContaining({ errno: "EINVAL" }),
    );
    expect(made.linkedPages).toBe(1);
  });

  test.each([
    [Number.NaN, 4096],
    [0, Number.NaN],
    [0, 1e12],
    [-4096, 4096],
    [0.5, 4096],
    [0, -1],
  ])("refuses to sync [%s, + %s)", (offset, length) => {
    const { made, domain } = range();
    const before = domain.counters.mapSyncs;
    expect(() => made.sync(offset, length)).toThrow(refused("ERR_DMA_LINK_RANGE", "cannot sync"));
    expect(domain.counters.mapSyncs).toBe(before);
  });

  test("syncs all of it, and nothing", () => {
    const { made } = range();
    made.sync();
    made.sync(16_384);
    made.sync(0, 0);
  });

  test.each([
    [-1, 4096],
    [0, 1.5],
    [Number.NaN, 4096],
  ])("refuses to unlink [%s, + %s), and says so of an unlink", (offset, length) => {
    const { made } = range();
    expect(() => made.unlink(offset, length)).toThrow(refused("ERR_DMA_LINK_RANGE", "cannot unlink"));
    expect(made.linkedPages).toBe(1);
  });

  test.each([Number.NaN, -1, 1.5, 0])("refuses to grow to %s bytes", (length) => {
    const { made } = range();
    expect(() => made.grow(length)).toThrow(refused("ERR_DMA_LENGTH"));
    expect(made.length).toBe(16_384);
  });
});

describe("an address", () => {
  test.each([4096.5, -4096, Number.NaN, Number.POSITIVE_INFINITY])(
    "of %s is refused, with the largest there is",
    (phys) => {
      const { made } = range();
      const words = refused("ERR_DMA_ADDRESS", "a whole number from 0 to 2\\^53 - 1 is needed");
      expect(() => made.link(0, PhysAddr(phys), 8192, "to-device")).toThrow(words);
      expect(() => made.linkVecs(0, [{ phys: PhysAddr(phys), length: 8192 }], "to-device")).toThrow(words);
    },
  );

  test("that is a bigint is refused everywhere, and the message says that a number is needed", () => {
    const { dma } = stand();
    const { made } = range();
    const phys = 0x9000n as never;
    const words = refused("ERR_DMA_ADDRESS", "36864n, a bigint", "number");
    expect(() => dma.map(phys, 4096, "to-device")).toThrow(words);
    expect(() => dma.mapVecs([{ phys, length: 4096 }], "to-device")).toThrow(words);
    expect(() => made.link(4096, phys, 4096, "to-device")).toThrow(words);
    expect(() => made.link(4096, phys, 8192, "to-device")).toThrow(words);
    expect(() => made.linkVecs(4096, [{ phys, length: 4096 }], "to-device")).toThrow(words);
    expect(() => dma.map(PHYS, 4096n as never, "to-device")).toThrow(refused("ERR_DMA_LENGTH", "4096n, a bigint"));
    expect(made.linkedPages).toBe(1);
  });
});

describe("a device", () => {
  test.each([Number.NaN, -1, "x", 1.5, 2 ** 65, undefined])(
    "refuses a mask of %s, and keeps the one it had",
    (mask) => {
      const { dma } = stand({ mask: 2 ** 32 - 1 });
      for (const set of ["setMask", "setCoherentMask", "setSegmentBoundary"] as const)
        expect(() => dma[set](mask as number)).toThrow(
          expect.objectContaining({ errno: "EINVAL", message: expect.stringContaining("is needed") }),
        );
      expect([dma.device.mask, dma.device.coherentMask]).toEqual([2 ** 32 - 1, 2 ** 32 - 1]);
      expect(dma.tryReserveIova({ length: 4096 })).toBeDefined();
    },
  );

  test.each(["mask", "coherentMask", "busLimit", "maxSegmentSize", "minAlignMask", "busOffset", "cacheLine"] as const)(
    "whose %s is no number is refused by that name",
    (name) => {
      for (const wrong of [Number.NaN, "x", 1.5])
        expect(() => new Dma({ [name]: wrong } as DmaOptions)).toThrow(
          expect.objectContaining({ errno: "EINVAL", message: expect.stringContaining(name) }),
        );
    },
  );

  test("is not made of a domain alone: that would be an untranslated one, silently", () => {
    const { domain } = stand();
    expect(() => new Dma(domain as never)).toThrow(refused("ERR_DMA_OPTIONS", "\\{ domain \\}"));
    for (const wrong of [null, 1, "0000:01:00.0", [domain]])
      expect(() => new Dma(wrong as never)).toThrow(refused("ERR_DMA_OPTIONS", "options"));
    expect(() => new Dma({ domain: {} as never })).toThrow(refused("ERR_DMA_OPTIONS", "domain"));
  });
});

describe("a vector that is longer than a table of entries", () => {
  test.each([0, 1, 511])("is where it says, from page %i of a table on, and nowhere else", (from) => {
    const { dma, domain } = stand();
    const pages = 1500;
    const range = dma.tryReserveIova({ length: 2048 * 4096 })!;
    const vecs = Array.from({ length: pages }, (_, i) => ({ phys: PhysAddr(0x1000_0000 + i * 8192), length: 4096 }));
    range.linkVecs(from * 4096, vecs, "to-device");
    const first = range.address / 4096;
    const found = Array.from({ length: 2048 }, (_, i) => domain.table.translate((first + i) as never)?.phys);
    const expected = Array.from({ length: 2048 }, (_, i) =>
      i < from || i >= from + pages ? undefined : vecs[i - from]!.phys / 4096,
    );
    expect(found).toEqual(expected);
    range.destroy();
    expect(domain.counters.leavesCleared).toBe(domain.counters.leavesWritten);
    expect(Array.from({ length: 2048 }, (_, i) => domain.table.translate((first + i) as never))).toEqual(
      Array.from({ length: 2048 }, () => undefined),
    );
  });
});
