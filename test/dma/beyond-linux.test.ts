/** What each way beyond Linux gains, in counts: the numbers of docs/two-step.md. */
import { describe, expect, test } from "vitest";
import { PhysAddr } from "../../src/base/index.ts";
import { ChunkIndex, Dma, type DmaOptions } from "../../src/dma/index.ts";
import { SimulatedHost, SimulatedUnit } from "../../src/hosts/simulated/index.ts";
import { DmaDomain } from "../../src/iommu/index.ts";
import { vtdSecondStage } from "../../src/layouts/pagetable/index.ts";

function front(options: Omit<DmaOptions, "domain" | "machine"> = {}): Dma {
  const host = new SimulatedHost({ memoryBytes: 2 ** 30, pool: { slots: 1024 } });
  const { machine, pool } = host;
  const domain = new DmaDomain({
    layout: vtdSecondStage(),
    unit: new SimulatedUnit(),
    clock: machine.clock,
    mode: "strict",
  });
  const { memory, pages } = machine;
  return new Dma({ domain, machine: { memory, pages, pool: pool! }, ...options });
}

const page = (n: number): PhysAddr => PhysAddr(2 ** 28 + n * 8192); // no two adjacent

describe("what the ways beyond Linux gain", () => {
  test("lazy unlink: 64 unlinks and relinks of a range cost 1 invalidation instead of 64", () => {
    const cost = (lazy: boolean): number => {
      const dma = front();
      const range = dma.tryReserveIova({ length: 64 * 4096 })!;
      for (let i = 0; i < 64; i++) range.link(i * 4096, page(i), 4096, "bidirectional");
      const before = dma.counters.invalidations;
      for (let i = 0; i < 64; i++) range.unlink(i * 4096, 4096, { lazy });
      range.flush();
      return dma.counters.invalidations - before;
    };
    expect([cost(false), cost(true)]).toEqual([64, 1]);
  });

  test("a growing range: 16 steps cost 1 reservation instead of 16, and nothing is linked twice", () => {
    const grown = front();
    const range = grown.tryReserveIova({ length: 4096, capacity: 16 * 4096 })!;
    for (let i = 0; i < 16; i++) {
      expect(range.grow((i + 1) * 4096)).toBe(true);
      range.link(i * 4096, page(i), 4096, "to-device");
    }
    expect(range.grow(17 * 4096)).toBe(false);
    const remade = front();
    for (let i = 1; i <= 16; i++) {
      const next = remade.tryReserveIova({ length: i * 4096 })!;
      for (let j = 0; j < i; j++) next.link(j * 4096, page(j), 4096, "to-device");
      next.destroy();
    }
    const counts = ({ counters }: Dma): number[] => [counters.iovaAllocations, counters.leavesWritten];
    expect([counts(grown), counts(remade)]).toEqual([
      [1, 16],
      [16, 136],
    ]);
  });

  test("a batch: 1 reservation, 1 sync and 1 invalidation for any number of pieces, instead of one each", () => {
    const dma = front();
    const batch = dma.batch("to-device", { maxBytes: 64 * 4096 });
    for (let i = 0; i < 64; i++) expect(batch.add({ phys: page(i), length: 4096 })).toBe("ok");
    expect(batch.add({ phys: page(64), length: 4096 })).toBe("full");
    batch.finalize();
    batch.unmap();
    const { iovaAllocations, mapSyncs, invalidations } = dma.counters;
    expect([iovaAllocations, mapSyncs, invalidations]).toEqual([1, 1, 1]);
  });

  test("a linearising bounce: pieces that cannot join are one address, for one copy of their bytes each way", () => {
    const dma = front();
    const pieces = [0, 1, 2].map((n) => ({ phys: PhysAddr(page(n) + 512), length: 1024 }));
    expect(() => dma.mapLinear(pieces, "bidirectional")).toThrow(expect.objectContaining({ errno: "ENXIO" }));
    const mapping = dma.mapLinear(pieces, "bidirectional", undefined, { allowBounce: true });
    expect(mapping.vecs.map(({ length }) => length)).toEqual([3072]);
    mapping.unmap();
    expect(dma.counters.bouncedBytes).toBe(2 * 3072);
  });

  test("the bounce's place in its granule is asked for: a ragged link works whatever the device's minAlignMask", () => {
    const link = (linuxCompatible: boolean): void => {
      const dma = front({ untrusted: true, minAlignMask: 0, linuxCompatible });
      const range = dma.tryReserveIova({ length: 0x2000, physOffset: 0x800 })!;
      try {
        range.link(0, PhysAddr(page(0) + 0x800), 0x2000, "bidirectional");
      } finally {
        range.destroy();
      }
    };
    expect(() => link(true)).toThrow(expect.objectContaining({ errno: "ENXIO" }));
    expect(() => link(false)).not.toThrow();
  });

  test("an index of chunks: a terabyte in three places is three chunks, and changing one page makes two more", () => {
    const index = new ChunkIndex<string>();
    for (const [at, kind] of ["ram", "peer", "ram"].entries()) index.set(at * 2 ** 38, 2 ** 38, at * 2 ** 40, kind);
    expect(index.count).toBe(3);
    index.set(2 ** 37, 4096, 0, "zero page");
    expect(index.count).toBe(5);
  });

  test("a gap before a segment boundary stays unmapped: the device reaches no byte that is in no entry", () => {
    const reach = (linuxCompatible: boolean): number => {
      const dma = front({ segmentBoundaryMask: 0x3fff, linuxCompatible });
      const list = [
        { phys: PhysAddr(0x2000_0000), length: 0x3000 },
        { phys: PhysAddr(0x2001_0000), length: 0x3000 },
      ];
      dma.mapScatterlist(list, "to-device");
      return dma.counters.leavesWritten;
    };
    expect([reach(true), reach(false)]).toEqual([7, 6]);
  });
});
