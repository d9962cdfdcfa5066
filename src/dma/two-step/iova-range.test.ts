import { describe, expect, test } from "vitest";
import { type Counters, type DmaAddr, MiB, PhysAddr } from "../../base/index.ts";
import { DmaEngine, SimulatedMemory, SimulatedUnit, VirtualClock } from "../../hosts/simulated/index.ts";
import { DmaDomain } from "../../iommu/index.ts";
import { amdV1, vtdSecondStage, x86_64 } from "../../layouts/pagetable/index.ts";
import { Dma } from "../index.ts";

function machine(mode: "strict" | "lazy" = "strict", layout = vtdSecondStage()) {
  const unit = new SimulatedUnit();
  const clock = new VirtualClock();
  const memory = new SimulatedMemory();
  const domain = new DmaDomain({ layout, unit, clock, mode });
  unit.attach(0x100, domain.tables);
  const engine = new DmaEngine(0x100, unit, memory);
  const dma = new Dma({ domain });
  const counters: Counters = domain.counters;
  const reaches = (address: number): boolean => engine.read(address as DmaAddr, new Uint8Array(1));
  return { unit, clock, memory, domain, engine, dma, counters, reaches };
}

const reserve = (dma: Dma, length: number, physOffset = 0) => dma.tryReserveIova({ length, physOffset })!;

for (const [name, layout] of [
  ["VT-d second stage", vtdSecondStage()],
  ["x86-64", x86_64()],
  ["AMD v1", amdV1()],
] as const)
  describe(`an IOVA range on ${name}`, () => {
    test("reaches nothing before anything is linked", () => {
      const { dma, reaches, unit } = machine("strict", layout);
      const range = reserve(dma, 4096);
      expect(reaches(range.address)).toBe(false);
      expect(unit.faults.at(-1)?.reason).toBe("not-present");
    });

    test("reaches what is linked, byte for byte, across pages that are apart in memory", () => {
      const { dma, memory, engine } = machine("strict", layout);
      const range = reserve(dma, 0x2000);
      memory.write(PhysAddr(0x7fff), new Uint8Array([1]));
      memory.write(PhysAddr(0x20000), new Uint8Array([2]));
      range.link(0, PhysAddr(0x7000), 4096, "to-device");
      range.link(4096, PhysAddr(0x20000), 4096, "to-device");
      range.sync();
      const into = new Uint8Array(2);
      expect(engine.read((range.address + 4095) as DmaAddr, into)).toBe(true);
      expect([...into]).toEqual([1, 2]);
    });

    test("allows only what the direction says", () => {
      const { dma, engine } = machine("strict", layout);
      const range = reserve(dma, 4096);
      range.link(0, PhysAddr(0x7000), 4096, "to-device");
      expect(engine.read(range.address, new Uint8Array(4))).toBe(true);
      expect(engine.write(range.address, new Uint8Array(4))).toBe(false);
    });

    test("reaches nothing once released, IOTLB and all", () => {
      const { dma, reaches } = machine("strict", layout);
      const range = reserve(dma, 4096);
      range.link(0, PhysAddr(0x7000), 4096, "bidirectional");
      expect(reaches(range.address)).toBe(true); // now it is cached
      range.destroy();
      expect(reaches(range.address)).toBe(false);
    });
  });

describe("an IOVA range: addresses and cost (specification of the DMA API, vectors 1 to 6)", () => {
  test("vector 1: the offset in the page is kept, the length is rounded up", () => {
    const { dma, counters } = machine();
    expect(reserve(dma, 0x3000, 0x1234).address).toBe(0xffffc234);
    expect(counters.iovaAllocations).toBe(1);
  });

  test("vectors 2 and 3: ragged ends; 4 leaves and 3 tables; strict teardown invalidates once", () => {
    const { dma, counters, domain } = machine();
    const range = reserve(dma, 0x3000, 0x1234);
    range.link(0, PhysAddr(0x10000234), 0xdcc, "bidirectional");
    range.link(0xdcc, PhysAddr(0x20000000), 0x1000, "bidirectional");
    range.link(0x1dcc, PhysAddr(0x30000000), 0x1234, "bidirectional");
    expect(counters.leavesWritten).toBe(4);
    expect(counters.tableEntriesWritten).toBe(3);
    expect([0xffffc, 0xffffd, 0xffffe, 0xfffff].map((page) => domain.table.lookup(page as never))).toEqual([
      0x10000, 0x20000, 0x30000, 0x30001,
    ]);
    range.destroy();
    expect(counters.leavesCleared).toBe(4);
    expect(counters.rangeInvalidations).toBe(1);
  });

  test("vector 3, lazy: no invalidation now, one entry in the flush queue", () => {
    const { dma, counters } = machine("lazy");
    const range = reserve(dma, 0x4000);
    range.link(0, PhysAddr(0x10000), 0x4000, "bidirectional");
    range.destroy();
    expect(counters.invalidations).toBe(0);
    expect(counters.flushQueueEntries).toBe(1);
  });

  test.each([
    ["4: an inner piece inside a page", 0x2000, 0x1000, 0x20000010, "EIO"],
    ["5: another place in the page than reserved", 0x2000, 0, 0x234, "ENXIO"],
    ["a piece past the end", 0x2000, 0x1000, 0x20000000, "EINVAL"],
  ])("vector %s is refused and leaves nothing", (_, length, offset, phys, errno) => {
    const { dma, domain, counters } = machine();
    const range = reserve(dma, length);
    const asked = errno === "EINVAL" ? 0x2000 : 0x800;
    expect(() => range.link(offset, PhysAddr(phys), asked, "bidirectional")).toThrow(
      expect.objectContaining({ errno }),
    );
    expect([...domain.table.entries()]).toEqual([]);
    expect(counters.leavesWritten).toBe(0);
  });

  test("vector 6: after a ragged inner piece the next one does not fit its page", () => {
    const { dma } = machine();
    const range = reserve(dma, 0x2000);
    range.link(0, PhysAddr(0x1000), 0x800, "bidirectional");
    expect(() => range.link(0x800, PhysAddr(0x5000), 0x800, "bidirectional")).toThrow(
      expect.objectContaining({ errno: "ENXIO" }),
    );
  });
});

describe("an IOVA range: rules", () => {
  test("a link over a link is refused, and the first one stays", () => {
    const { dma, domain } = machine();
    const range = reserve(dma, 0x2000);
    range.link(0x1000, PhysAddr(0x5000), 0x1000, "bidirectional");
    expect(() => range.link(0, PhysAddr(0x8000), 0x2000, "bidirectional")).toThrow(
      expect.objectContaining({ errno: "EADDRINUSE" }),
    );
    const leaves = [...domain.table.entries()].filter((entry) => entry.leaf);
    expect(leaves).toHaveLength(1);
  });

  test("a vector link is all or nothing", () => {
    const { dma, domain } = machine();
    const range = reserve(dma, 0x3000);
    range.link(0x2000, PhysAddr(0x9000), 0x1000, "bidirectional");
    const vecs = [0x5000, 0x7000, 0x20000].map((phys) => ({ phys: PhysAddr(phys), length: 4096 }));
    expect(() => range.linkVecs(0, vecs, "bidirectional")).toThrow(expect.objectContaining({ errno: "EADDRINUSE" }));
    const leaves = [...domain.table.entries()].filter((entry) => entry.leaf);
    expect(leaves).toHaveLength(1);
  });

  test("a vector link is the same as one link each, over the ends of tables too", () => {
    const [one, many] = [machine(), machine()];
    const count = 1500; // three tables at least, wherever it begins
    const vecs = Array.from({ length: count }, (_, i) => ({
      phys: PhysAddr(((i * 7919) % 5000) * 4096),
      length: 4096,
    }));
    const a = reserve(one.dma, count * 4096);
    a.linkVecs(0, vecs, "from-device");
    const b = reserve(many.dma, count * 4096);
    for (const [i, { phys, length }] of vecs.entries()) b.link(i * 4096, phys, length, "from-device");
    const leaves = (m: typeof one) =>
      [...m.domain.table.entries()].filter((e) => e.leaf).map(({ path, low, high }) => [path, low, high]);
    expect(leaves(one)).toEqual(leaves(many));
    expect(one.counters.leavesWritten).toBe(many.counters.leavesWritten);
    a.destroy();
    expect(leaves(one)).toEqual([]);
  });

  test("unlink takes a part away at once, in lazy mode too, and keeps the address", () => {
    const { dma, reaches, counters } = machine("lazy");
    const range = reserve(dma, 0x3000);
    range.link(0, PhysAddr(0x10000), 0x3000, "bidirectional");
    expect(reaches(range.address + 0x1000)).toBe(true);
    range.unlink(0x1000, 0x1000);
    expect(reaches(range.address + 0x1000)).toBe(false);
    expect(reaches(range.address + 0x2000)).toBe(true);
    expect(counters.rangeInvalidations).toBe(1);
    range.link(0x1000, PhysAddr(0x50000), 0x1000, "bidirectional");
    expect(reaches(range.address + 0x1000)).toBe(true);
  });

  test("unlink of a hole is refused and changes nothing", () => {
    const { dma, reaches } = machine();
    const range = reserve(dma, 0x3000);
    range.link(0, PhysAddr(0x10000), 0x1000, "bidirectional");
    expect(() => range.unlink(0, 0x2000)).toThrow(expect.objectContaining({ code: "ERR_DMA_UNLINK_HOLE" }));
    expect(reaches(range.address)).toBe(true);
  });

  test("destroy finds everything that is linked, holes between and all", () => {
    const { dma, domain } = machine();
    const range = reserve(dma, 8 * 4096);
    for (const page of [1, 2, 5, 7]) range.link(page * 4096, PhysAddr(0x10000 * (page + 1)), 4096, "bidirectional");
    range.unlink(2 * 4096, 4096);
    range.destroy();
    expect([...domain.table.entries()].filter((entry) => entry.leaf)).toEqual([]);
  });

  test("a second release does nothing; use after release is refused", () => {
    const { dma, counters } = machine();
    const range = reserve(dma, 4096);
    range.destroy();
    range.destroy();
    expect(counters.iovaFrees).toBe(1);
    expect(() => range.link(0, PhysAddr(0x1000), 4096, "bidirectional")).toThrow(
      expect.objectContaining({ code: "ERR_DMA_RELEASED" }),
    );
  });

  test("no room is not an error", () => {
    const { domain } = machine();
    const dma = new Dma({ domain, mask: MiB - 1 });
    expect(dma.tryReserveIova({ length: 2 * MiB })).toBeUndefined();
  });

  test.each([0, -1, 0.5, Number.NaN, 2 ** 60])("a length of %s is refused", (length) => {
    const { dma } = machine();
    expect(() => dma.tryReserveIova({ length })).toThrow(expect.objectContaining({ errno: "EINVAL" }));
    expect(() => dma.map(PhysAddr(0), length, "bidirectional")).toThrow(expect.objectContaining({ errno: "EINVAL" }));
  });
});

describe("the object of a range that was given back", () => {
  for (const mode of ["strict", "lazy"] as const)
    test(`serves again, and holds nothing of before (${mode})`, () => {
      const { dma, reaches, counters } = machine(mode);
      const first = reserve(dma, 0x3000, 0x800);
      first.link(0, PhysAddr(0x7800), 0x2800, "to-device");
      first.sync();
      first.destroy();
      const other = reserve(dma, 0x1000);
      const again = dma.tryReserveIova({ length: 0x2000, reuse: first })!;
      expect(again).toBe(first);
      expect([again.length, again.linkedPages, again.address % 4096]).toEqual([0x2000, 0, 0]);
      expect(reaches(again.address)).toBe(false);
      again.link(0, PhysAddr(0x9000), 4096, "from-device");
      again.sync(0, 4096);
      expect(reaches(again.address)).toBe(false); // only what the direction says: the one of before is forgotten
      expect(() => again.link(0x1000, PhysAddr(0x9000), 0x2000, "to-device")).toThrow(
        expect.objectContaining({ code: "ERR_DMA_LINK_RANGE" }),
      );
      again.destroy(4096);
      expect(() => again.sync()).toThrow(expect.objectContaining({ code: "ERR_DMA_RELEASED" }));
      other.destroy();
      expect(counters.leavesWritten).toBe(counters.leavesCleared);
      expect(counters.iovaAllocations).toBe(3);
    });

  test("is left alone while it is in use, and by another device", () => {
    const { dma } = machine();
    const range = reserve(dma, 4096);
    expect(dma.tryReserveIova({ length: 4096, reuse: range })).not.toBe(range);
    range.destroy();
    expect(machine().dma.tryReserveIova({ length: 4096, reuse: range })).not.toBe(range);
  });
});
