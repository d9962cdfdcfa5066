import { describe, expect, test } from "vitest";
import { PhysAddr } from "../base/index.ts";
import { SimulatedUnit, VirtualClock } from "../hosts/simulated/index.ts";
import { DmaDomain } from "../iommu/index.ts";
import { vtdSecondStage } from "../layouts/pagetable/index.ts";
import { Dma } from "./index.ts";

function device(mode: "strict" | "lazy" = "strict", maxSegmentSize = 2 ** 32 - 1) {
  const clock = new VirtualClock();
  const domain = new DmaDomain({ layout: vtdSecondStage(), unit: new SimulatedUnit(), clock, mode });
  return {
    domain,
    clock,
    dma: new Dma({ domain, ...(maxSegmentSize && { maxSegmentSize }) }),
    counters: domain.counters,
  };
}
const vecs = (...list: [number, number][]) => list.map(([phys, length]) => ({ phys: PhysAddr(phys), length }));
const leaves = (domain: DmaDomain): number => [...domain.table.entries()].filter((entry) => entry.leaf).length;

describe("a one-shot mapping", () => {
  test("vector 11: keeps the offset in the page; 4 leaves, 1 map sync; one invalidation when it ends", () => {
    const { dma, counters } = device();
    const mapping = dma.map(PhysAddr(0x1234), 0x3000, "bidirectional");
    expect(mapping.address % 0x1000).toBe(0x234);
    expect([counters.iovaAllocations, counters.leavesWritten, counters.mapSyncs]).toEqual([1, 4, 1]);
    mapping.unmap();
    expect([counters.leavesCleared, counters.rangeInvalidations, counters.iovaFrees]).toEqual([4, 1, 1]);
  });

  test("that fails gives its addresses back at once", () => {
    const { dma, counters, domain } = device();
    expect(() => dma.map(PhysAddr(2 ** 52), 4096, "bidirectional")).toThrow(
      expect.objectContaining({ errno: "ERANGE" }),
    );
    expect(counters.iovaFrees).toBe(1);
    expect(leaves(domain)).toBe(0);
  });
});

describe("a scatterlist", () => {
  test("vector 12: whole pages join into one segment", () => {
    const { dma, counters } = device();
    const { segments } = dma.mapScatterlist(vecs([0x1000, 0x1000], [0x5000, 0x1000], [0x9000, 0x800]), "to-device");
    expect(segments.map(({ length }) => length)).toEqual([0x2800]);
    expect([counters.iovaAllocations, counters.mapSyncs]).toEqual([1, 1]);
  });

  test("vector 13: a ragged end breaks the segment", () => {
    const { dma } = device();
    const { segments } = dma.mapScatterlist(vecs([0x1000, 0x1000], [0x5000, 0x800], [0x9000, 0x800]), "to-device");
    expect(segments.map(({ length }) => length)).toEqual([0x1800, 0x800]);
  });

  test("segments stay within the device's longest", () => {
    const { dma } = device("strict", 0x2000);
    const { segments } = dma.mapScatterlist(vecs([0x1000, 0x1000], [0x5000, 0x1000], [0x9000, 0x1000]), "to-device");
    expect(segments.map(({ length }) => length)).toEqual([0x2000, 0x1000]);
  });

  test("ends with one invalidation for all of it, or one entry of the flush queue", () => {
    for (const mode of ["strict", "lazy"] as const) {
      const { dma, counters, domain } = device(mode);
      dma.mapScatterlist(vecs([0x1000, 0x1000], [0x5000, 0x1000], [0x9000, 0x1000]), "to-device").unmap();
      expect([counters.rangeInvalidations, counters.flushQueueEntries]).toEqual(mode === "strict" ? [1, 0] : [0, 1]);
      expect(leaves(domain)).toBe(0);
    }
  });

  test("that fails in the middle leaves nothing", () => {
    const { dma, domain, counters } = device();
    expect(() => dma.mapScatterlist(vecs([0x1000, 0x1000], [2 ** 52, 0x1000]), "to-device")).toThrow(
      expect.objectContaining({ code: "ERR_DMA_MAP" }),
    );
    expect(leaves(domain)).toBe(0);
    expect(counters.iovaAllocations).toBe(counters.iovaFrees);
  });
});

describe("lazy mode", () => {
  test("gives addresses back only after the flush: on the timer, 10 ms later", () => {
    const { dma, clock, counters } = device("lazy");
    const first = dma.map(PhysAddr(0x1000), 4096, "bidirectional");
    first.unmap();
    expect(dma.map(PhysAddr(0x2000), 4096, "bidirectional").address).not.toBe(first.address);
    expect(counters.domainInvalidations).toBe(0);
    clock.advance(10);
    expect(counters.domainInvalidations).toBe(1);
    expect(dma.map(PhysAddr(0x3000), 4096, "bidirectional").address).toBe(first.address);
  });

  test("detached table pages wait for the flush as well", () => {
    const { dma, clock, domain } = device("lazy");
    const mapping = dma.map(PhysAddr(0x40001000), 4 * 2 ** 20, "bidirectional");
    const tables = domain.tablePages;
    mapping.unmap();
    expect(domain.tablePages).toBe(tables);
    clock.advance(10);
    expect(domain.tablePages).toBeLessThan(tables);
  });
});

describe("what a caller without types may pass", () => {
  test.each([-4096, -1, 0.5, Number.NaN, 2 ** 54])(
    "a physical address of %s is refused, and nothing is left",
    (phys) => {
      const { dma, domain, counters } = device();
      expect(() => dma.map(PhysAddr(phys), 4096, "to-device")).toThrow(expect.objectContaining({ errno: "EINVAL" }));
      const range = dma.tryReserveIova({ length: 8192 })!;
      expect(() => range.link(4096, PhysAddr(phys), 4096, "to-device")).toThrow(
        expect.objectContaining({ name: "DmaError" }),
      );
      range.destroy();
      expect(leaves(domain)).toBe(0);
      expect(counters.iovaAllocations).toBe(counters.iovaFrees);
    },
  );

  test("a direction that is none is refused everywhere", () => {
    const { dma, domain } = device();
    const sideways = "sideways" as never;
    const refused = expect.objectContaining({ code: "ERR_DMA_DIRECTION" });
    const range = dma.tryReserveIova({ length: 8192 })!;
    expect(() => dma.map(PhysAddr(0x5000), 4096, sideways)).toThrow(refused);
    expect(() => dma.mapScatterlist(vecs([0x5000, 4096]), sideways)).toThrow(refused);
    expect(() => range.link(0, PhysAddr(0x5000), 4096, sideways)).toThrow(refused);
    expect(() => range.linkVecs(0, vecs([0x5000, 4096]), sideways)).toThrow(refused);
    expect(leaves(domain)).toBe(0);
  });

  test("a physical address that is no whole number is never linked", () => {
    const { dma, domain } = device();
    const range = dma.tryReserveIova({ length: 8192 })!;
    for (const phys of [0x5000 + 0.5, Number.NaN, Number.POSITIVE_INFINITY, -4096]) {
      expect(() => range.link(0, PhysAddr(phys), 4096, "to-device")).toThrow();
      expect(() => range.linkVecs(0, vecs([0x9000, 4096], [phys, 4096]), "to-device")).toThrow(
        expect.objectContaining({ code: "ERR_DMA_ADDRESS" }),
      );
    }
    expect(leaves(domain)).toBe(0);
  });

  test("a domain is strict or lazy, nothing else", () => {
    expect(() => device("eager" as never)).toThrow(expect.objectContaining({ code: "ERR_DMA_DOMAIN" }));
  });
});
