/** A VT-d unit driven by the stack, and a simulated one that reads what the stack writes: two readings of one treaty. */
import { describe, expect, test } from "vitest";
import { type DmaAddr, PhysAddr } from "../../src/base/index.ts";
import { DmaEngine, SimulatedMemory } from "../../src/hosts/simulated/index.ts";
import { DmaDomain } from "../../src/iommu/index.ts";
import { READ, vtdSecondStage, WRITE, x86_64 } from "../../src/layouts/pagetable/index.ts";
import type { Arena } from "../../src/pagetable/index.ts";
import { DEVICE, frame, OTHER, page, vtdMachine } from "./machine.ts";

const RW = READ | WRITE;
const MODES = [
  { name: "legacy mode", traits: {}, layout: () => vtdSecondStage() },
  { name: "legacy mode with three levels", traits: {}, layout: () => vtdSecondStage({ levels: 3 }) },
  { name: "scalable mode, first stage", traits: { scalableMode: true }, layout: () => x86_64() },
  {
    name: "scalable mode, first stage of five levels",
    traits: { scalableMode: true, fiveLevelFirstStage: true },
    layout: () => x86_64({ levels: 5 }),
  },
  { name: "scalable mode, second stage", traits: { scalableMode: true }, layout: () => vtdSecondStage() },
] as const;

for (const { name, traits, layout } of MODES)
  describe(`a VT-d unit in ${name}`, () => {
    test("refuses a device that nobody attached", () => {
      const { unit, reach } = vtdMachine(traits);
      expect(reach([1])).toEqual([-1]);
      expect(unit.readFaults()).toBe(1);
      expect(unit.faults.drain()).toMatchObject([
        { kind: "translation", requester: DEVICE, page: 1, reason: "scalableMode" in traits ? 0x39 : 0x01 },
      ]);
    });

    test("reaches what the tables of its domain say, once attached, and nothing once detached", () => {
      const { unit, tables, reach } = vtdMachine(traits);
      const domain = tables(7, layout());
      domain.table.map(page(5), frame(9), 3, RW);
      unit.attach(DEVICE, domain.view);
      expect(reach([4, 5, 6, 7, 8])).toEqual([-1, 9, 10, 11, -1]);
      expect(reach([5], OTHER)).toEqual([-1]);
      unit.detach(DEVICE);
      expect(reach([5])).toEqual([-1]);
      expect(unit.broken).toBeUndefined();
    });

    test("follows leaves of every size, and keeps apart what lies in one bus, half and function", () => {
      const { unit, hardware, tables } = vtdMachine(traits);
      const requesters = [0x0100, 0x0107, 0x0180, 0x01ff, 0xff00];
      requesters.forEach((requester, i) => {
        const domain = tables(i + 1, layout());
        domain.table.map(page(0x200), frame(0x40000 + i * 0x200), 512, RW);
        domain.table.map(page(0x40000), frame(0x80000), 0x40000, READ);
        unit.attach(requester, domain.view);
      });
      requesters.forEach((requester, i) => {
        expect(hardware.translate(requester, page(0x3ff), "write")).toBe(0x401ff + i * 0x200);
        expect(hardware.translate(requester, page(0x7ffff), "read")).toBe(0xbffff);
        expect(hardware.translate(requester, page(0x7ffff), "write")).toBe(-1);
      });
      expect(hardware.cached).toBe(10);
    });

    test("attached anew, it reaches the new tables at once", () => {
      const { unit, tables, reach } = vtdMachine(traits);
      const [before, after] = [tables(1, layout()), tables(2, layout())];
      before.table.map(page(5), frame(9), 1, RW);
      after.table.map(page(5), frame(10), 1, RW);
      unit.attach(DEVICE, before.view);
      expect(reach([5])).toEqual([9]);
      unit.attach(DEVICE, after.view);
      expect(reach([5])).toEqual([10]);
    });

    test("keeps a translation until it is invalidated, whatever became of the tables", () => {
      const { unit, tables, reach } = vtdMachine(traits);
      const domain = tables(7, layout());
      domain.table.map(page(5), frame(9), 2, RW);
      unit.attach(DEVICE, domain.view);
      expect(reach([5, 6])).toEqual([9, 10]);
      domain.clear(5, 2);
      expect(reach([5, 6])).toEqual([9, 10]);
      unit.invalidateRange(7, page(5), page(6), true);
      expect(reach([5, 6])).toEqual([-1, 10]);
    });

    test("forgets a table only if it is told that tables went, and not telling it is found out", () => {
      const { unit, hardware, tables, reach } = vtdMachine(traits);
      const domain = tables(7, layout());
      domain.table.map(page(0), frame(9), 512, RW);
      unit.attach(DEVICE, domain.view);
      expect(reach([5])).toEqual([14]);
      const gather = domain.clear(0, 512);
      domain.table.map(page(0), frame(0x200), 512, RW); // a large leaf instead: the table is gone
      expect(hardware.staleTables).toBe(0);
      unit.invalidateRange(7, page(0), page(512), true);
      expect(hardware.staleTables).toBe(1);
      expect(reach([5])).toEqual([-1]); // it still looks into the old table
      unit.invalidateRange(7, page(0), page(512), false);
      expect(reach([5])).toEqual([0x205]);
      domain.table.complete(gather);
      expect(hardware.staleTables).toBe(1);
    });

    test("forgets the table that a large leaf takes the place of, before the table is anybody else's", () => {
      for (const mode of ["strict", "lazy"] as const) {
        const { unit, hardware, memory, clock, reach } = vtdMachine(traits);
        const domain = new DmaDomain({ layout: layout(), unit, clock, mode, domainId: 3, tableMemory: memory });
        unit.attach(DEVICE, domain.tables);
        domain.map(page(0x200), frame(0x3000), 511, RW);
        expect(reach([0x200])).toEqual([0x3000]);
        domain.unmapNow(page(0x200), 511); // the table stays, as not all of it went
        domain.map(page(0x200), frame(0x4000), 512, RW);
        expect([reach([0x200, 0x3ff]), hardware.staleTables]).toEqual([[0x4000, 0x41ff], 0]);
      }
    });

    test("works under an IOMMU domain and a device, strict and lazy", () => {
      for (const mode of ["strict", "lazy"] as const) {
        const { unit, hardware, memory, clock } = vtdMachine(traits);
        const domain = new DmaDomain({
          layout: layout(),
          unit,
          clock,
          mode,
          domainId: 3,
          tableMemory: memory,
          lastPage: 0xfffff,
        });
        unit.attach(DEVICE, domain.tables);
        const ram = new SimulatedMemory();
        const device = new DmaEngine(DEVICE, hardware, ram);
        ram.write(PhysAddr(0x200_0000), Uint8Array.of(1, 2, 3));
        const start = domain.reserve(16, 0xfffff, { prefer32: true, busLimitPfn: 0 });
        domain.map(start, frame(0x2000), 16, RW);
        domain.sync(start, 16);
        const bytes = new Uint8Array(3);
        expect([device.read((start * 4096) as DmaAddr, bytes), ...bytes]).toEqual([true, 1, 2, 3]);
        domain.release(start, 16, 16);
        expect(device.read((start * 4096) as DmaAddr, bytes)).toBe(mode === "lazy");
        clock.advance(10);
        expect(device.read((start * 4096) as DmaAddr, bytes)).toBe(false);
        unit.detach(DEVICE);
        domain.destroy();
        unit.destroy();
        expect(memory.framesInUse).toBe(0);
      }
    });
  });

describe("pass-through", () => {
  for (const scalableMode of [false, true])
    test(`reaches memory as it is, in ${scalableMode ? "scalable" : "legacy"} mode`, () => {
      const { unit, tables, reach, hardware } = vtdMachine({ scalableMode });
      unit.attachPassThrough(DEVICE, 4);
      expect(reach([0, 77, 2 ** 40])).toEqual([0, 77, 2 ** 40]);
      expect(hardware.cached).toBe(0);
      const domain = tables(5);
      unit.attach(DEVICE, domain.view);
      expect(reach([77])).toEqual([-1]);
      unit.attachPassThrough(DEVICE, 4);
      expect(reach([77])).toEqual([77]);
    });

  test("needs a unit that has it", () => {
    const { unit, reach } = vtdMachine({ passThrough: false });
    expect(() => unit.attachPassThrough(DEVICE, 4)).toThrow(
      expect.objectContaining({ code: "ERR_DMA_VTD_CAPABILITY", errno: "EOPNOTSUPP" }),
    );
    expect(reach([1])).toEqual([-1]);
  });
});

describe("requests with a PASID", () => {
  const traits = { scalableMode: true, pasidBits: 20 };

  test("reach the tables of their PASID, and those without reach their own", () => {
    const { unit, tables, reach } = vtdMachine(traits);
    const [own, first, second] = [tables(1), tables(2), tables(3, vtdSecondStage())];
    [own, first, second].forEach((domain, i) => {
      domain.table.map(page(5), frame(10 + i), 1, RW);
    });
    unit.attach(DEVICE, own.view);
    unit.attach(DEVICE, first.view, { pasid: 1 });
    unit.attach(DEVICE, second.view, { pasid: 0xfffff });
    expect([reach([5]), reach([5], DEVICE, 1), reach([5], DEVICE, 0xfffff), reach([5], DEVICE, 2)]).toEqual([
      [10],
      [11],
      [12],
      [-1],
    ]);
    unit.detachPasid(DEVICE, 1);
    expect([reach([5]), reach([5], DEVICE, 1), reach([5], DEVICE, 0xfffff)]).toEqual([[10], [-1], [12]]);
    unit.detach(DEVICE);
    expect([reach([5]), reach([5], DEVICE, 0xfffff)]).toEqual([[-1], [-1]]);
  });

  test("one domain under two PASIDs forgets both", () => {
    const { unit, tables, reach, hardware } = vtdMachine(traits);
    const domain = tables(1);
    domain.table.map(page(5), frame(10), 1, RW);
    unit.attach(DEVICE, domain.view, { pasid: 1 });
    unit.attach(DEVICE, domain.view, { pasid: 2 });
    expect([reach([5], DEVICE, 1), reach([5], DEVICE, 2)]).toEqual([[10], [10]]);
    unit.detachPasid(DEVICE, 1);
    expect(hardware.cached).toBe(1); // the other PASID's stays
    unit.attach(DEVICE, domain.view, { pasid: 1 });
    reach([5], DEVICE, 1);
    domain.unmap(5, 1);
    expect([reach([5], DEVICE, 1), reach([5], DEVICE, 2)]).toEqual([[-1], [-1]]);
  });

  test.each([
    ["in legacy mode", {}, { pasid: 1 }, "EOPNOTSUPP"],
    ["beyond those of the unit", { scalableMode: true, pasidBits: 8 }, { pasid: 256 }, "EINVAL"],
    ["beyond those of the device", traits, { pasid: 16, pasidBits: 4 }, "EINVAL"],
    ["of a device that has none", traits, { pasid: 1, pasidBits: 0 }, "EINVAL"],
    ["that is no whole number", traits, { pasid: 1.5 }, "EINVAL"],
    ["that is attached", traits, { pasid: 3 }, "EBUSY"],
  ] as const)("%s are not attached, and nothing is left behind", (_what, given, options, errno) => {
    const { unit, tables, memory } = vtdMachine(given);
    const domain = tables(1);
    if (errno === "EBUSY") unit.attach(DEVICE, domain.view, options);
    const before = memory.framesInUse;
    expect(() => unit.attach(DEVICE, domain.view, options)).toThrow(expect.objectContaining({ errno }));
    expect(memory.framesInUse).toBe(before);
  });
});

describe("nested translation", () => {
  /** A guest whose memory is [0, 64 MiB) at 4 GiB, with first-stage tables of its own in it. */
  function guest() {
    const machine = vtdMachine({ scalableMode: true, nested: true, deviceTlb: true });
    const { tables, memory } = machine;
    const parent = tables(1, vtdSecondStage());
    const inner = tables(9, x86_64());
    // the guest's own pages of tables lie where the host's arena has them: guest page = host page less 2^35
    parent.table.map(page(0x8000), frame(2 ** 35), 64, RW);
    const guestPage = (host: number): number => host - 2 ** 35 + 0x8000;
    return { ...machine, parent, inner, memory, guestPage };
  }

  test("goes through both, tables and pages alike, and a change of either is seen after its invalidation", () => {
    const { unit, parent, memory, reach, hardware, guestPage } = guest();
    parent.table.map(page(0x100), frame(0x5000), 16, RW);
    // by hand, as a guest would: one page at 5 that goes to guest page 0x102
    const levels = [0, 1, 2, 3].map(() => 2 ** 35 + memory.allocate());
    levels.forEach((table, i) => {
      const next = i === 3 ? 0x102 : guestPage(levels[i + 1]!);
      memory.store(frame(table), i === 3 ? 5 : 0, (next << 12) | 0x67, 0);
    });
    unit.attachNested(DEVICE, 2, { table: frame(guestPage(levels[0]!)), levels: 4 }, parent.view);
    expect(reach([5, 6])).toEqual([0x5002, -1]);
    // the host takes the page away: whatever is nested in it goes
    parent.unmap(0x102, 1);
    expect(reach([5])).toEqual([-1]);
    parent.table.map(page(0x102), frame(0x6000), 1, RW);
    expect(reach([5])).toEqual([0x6000]);
    // the guest takes its own page away
    memory.store(frame(levels[3]!), 5, 0, 0);
    expect(reach([5])).toEqual([0x6000]);
    unit.invalidateRange(2, page(5), page(6), true);
    expect(reach([5])).toEqual([-1]);
    unit.detach(DEVICE);
    expect(reach([5])).toEqual([-1]);
    expect([unit.broken, hardware.staleTables]).toEqual([undefined, 0]);
  });

  test("allows what both stages allow", () => {
    const { unit, parent, memory, hardware, guestPage } = guest();
    parent.table.map(page(0x100), frame(0x5000), 1, READ);
    parent.table.map(page(0x101), frame(0x6000), 1, RW);
    const levels = [0, 1, 2, 3].map(() => 2 ** 35 + memory.allocate());
    levels.slice(0, 3).forEach((table, i) => {
      memory.store(frame(table), 0, (guestPage(levels[i + 1]!) << 12) | 0x67, 0);
    });
    [0x100067, 0x101067, 0x101065].forEach((entry, i) => {
      memory.store(frame(levels[3]!), i, entry, 0);
    });
    unit.attachNested(DEVICE, 2, { table: frame(guestPage(levels[0]!)), levels: 4 }, parent.view);
    const write = [0, 1, 2].map((n) => hardware.translate(DEVICE, page(n), "write"));
    const read = [0, 1, 2].map((n) => hardware.translate(DEVICE, page(n), "read"));
    expect([write, read]).toEqual([
      [-1, 0x6000, -1],
      [0x5000, 0x6000, 0x6000],
    ]);
  });

  test("tells all of the device's TLB when the parent changes, as its addresses are the guest's", () => {
    const sent: string[] = [];
    const { unit, hardware, tables } = vtdMachine(
      { scalableMode: true, nested: true, deviceTlb: true },
      {
        observer: {
          descriptorsSubmitted: (words, at, count) => {
            for (let i = 0; i < count; i++)
              sent.push([...words.subarray(at + i * 8, at + i * 8 + 4)].map((word) => word.toString(16)).join(" "));
          },
        },
      },
    );
    hardware.addDeviceTlb(DEVICE);
    const parent = tables(1, vtdSecondStage());
    parent.table.map(page(0x100), frame(0x5000), 1, RW);
    unit.attachNested(DEVICE, 2, { table: frame(0x8000), levels: 4 }, parent.view, { ats: { queueDepth: 0, stu: 0 } });
    sent.length = 0;
    parent.unmap(0x100, 1);
    expect(sent).toEqual(["200f2 0 100040 0", "3 100 fffff001 7fffffff"]);
  });

  test("needs scalable mode, a unit that nests, and a parent with a second stage", () => {
    const attach = (traits: object, stage: "first" | "second") => () => {
      const { unit, tables } = vtdMachine(traits);
      const parent = tables(1, stage === "second" ? vtdSecondStage() : x86_64());
      unit.attachNested(DEVICE, 2, { table: frame(0), levels: 4 }, parent.view);
    };
    expect(attach({}, "second")).toThrow(expect.objectContaining({ errno: "EOPNOTSUPP" }));
    expect(attach({ scalableMode: true }, "second")).toThrow(expect.objectContaining({ errno: "EOPNOTSUPP" }));
    expect(attach({ scalableMode: true, nested: true }, "first")).toThrow(expect.objectContaining({ errno: "EINVAL" }));
  });
});

describe("caching mode", () => {
  test("remembers absent second-stage entries until it is told; any other unit does not", () => {
    for (const cachingMode of [false, true]) {
      const { unit, tables, reach } = vtdMachine({ cachingMode });
      const domain = tables(7);
      unit.attach(DEVICE, domain.view);
      expect(reach([5])).toEqual([-1]);
      domain.table.map(page(5), frame(9), 1, RW);
      expect(reach([5])).toEqual([cachingMode ? -1 : 9]);
      expect(unit.syncMap(7, page(5), page(6))).toBe(cachingMode);
      expect(reach([5])).toEqual([9]);
    }
  });

  test("may also remember none, and ask for the invalidations all the same, as an emulated unit does", () => {
    const { unit, tables, reach } = vtdMachine({ cachingMode: true, cachesAbsent: false });
    const domain = tables(7);
    expect(reach([5])).toEqual([-1]);
    unit.attach(DEVICE, domain.view);
    expect(reach([5])).toEqual([-1]);
    domain.table.map(page(5), frame(9), 1, RW);
    expect(reach([5])).toEqual([9]);
    expect(unit.syncMap(7, page(5), page(6))).toBe(true);
  });

  test("remembers absent contexts and PASIDs, so attaching tells it", () => {
    for (const scalableMode of [false, true]) {
      const { unit, tables, reach } = vtdMachine({ cachingMode: true, scalableMode, pasidBits: scalableMode ? 20 : 0 });
      const domain = tables(7);
      domain.table.map(page(5), frame(9), 1, RW);
      expect(reach([5])).toEqual([-1]);
      unit.attach(DEVICE, domain.view);
      expect(reach([5])).toEqual([9]);
      if (!scalableMode) continue;
      expect(reach([5], DEVICE, 3)).toEqual([-1]);
      unit.attach(DEVICE, domain.view, { pasid: 3 });
      expect(reach([5], DEVICE, 3)).toEqual([9]);
    }
  });

  test("needs nothing for new first-stage entries", () => {
    const { unit, tables, reach } = vtdMachine({ cachingMode: true, scalableMode: true });
    const domain = tables(7);
    unit.attach(DEVICE, domain.view);
    expect(reach([5])).toEqual([-1]);
    domain.table.map(page(5), frame(9), 1, RW);
    expect(unit.syncMap(7, page(5), page(6))).toBe(false);
    expect(reach([5])).toEqual([9]);
  });
});

describe("a unit with a write buffer", () => {
  test("is told to flush it at every map, and nothing else is sent", () => {
    const { unit, hardware, tables } = vtdMachine({ writeBuffer: true });
    const domain = tables(7);
    unit.attach(DEVICE, domain.view);
    const [flushes, submissions] = [hardware.writeBufferFlushes, hardware.counts.submissions];
    domain.table.map(page(5), frame(9), 1, RW);
    expect(unit.syncMap(7, page(5), page(6))).toBe(false);
    expect([hardware.writeBufferFlushes - flushes, hardware.counts.submissions - submissions]).toEqual([1, 0]);
  });
});

describe("entries are those of a real machine", () => {
  /** The 64-bit words of an entry. */
  const words = (memory: Arena, table: number, at: number, count: number): bigint[] =>
    Array.from({ length: count }, (_, i) => {
      const [low, high] = [memory.low(frame(table), at + i), memory.high(frame(table), at + i)];
      return (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0);
    });
  const below = (word: bigint): number => Number(word >> 12n);
  /** The page that the top level of the machine's structures lies in: the first that was taken. */
  const root = 2 ** 35;

  test("in legacy mode, for a device with and without TLB, and pass-through", () => {
    const { unit, memory, tables } = vtdMachine({ deviceTlb: true });
    const domain = tables(3);
    unit.attach(0x0110, domain.view);
    unit.attach(0x0111, domain.view, { ats: { queueDepth: 0, stu: 0 } });
    unit.attachPassThrough(0x0112, 4);
    const [rootEntry] = words(memory, root, 2, 1);
    const table = BigInt(domain.table.root) << 12n;
    expect(rootEntry! & 0xfffn).toBe(1n);
    expect([0x10, 0x11, 0x12].map((devfn) => words(memory, below(rootEntry!), devfn * 2, 2))).toEqual([
      [table | 1n, 0x302n],
      [table | 5n, 0x302n],
      [9n, 0x402n],
    ]);
    unit.detach(0x0110);
    expect(words(memory, below(rootEntry!), 0x20, 2)).toEqual([0n, 0n]);
  });

  test.each([
    [false, 0n],
    [true, 1n << 23n],
  ])("in scalable mode, with walks that snoop: %s", (walkSnoop, snoop) => {
    const { unit, memory, tables } = vtdMachine({ scalableMode: true, walkSnoop, nested: true });
    const [first, second] = [tables(3), tables(4, vtdSecondStage())];
    const entryOf = (requester: number): bigint[] => {
      const [rootEntry] = words(memory, root, (requester >> 8) * 2 + ((requester >> 7) & 1), 1);
      const context = words(memory, below(rootEntry!), (requester & 0x7f) * 4, 4);
      expect([context[0]! & 0xfffn, ...context.slice(1)]).toEqual([0x401n, 0n, 0n, 0n]);
      const [directory] = words(memory, below(context[0]!), 0, 1);
      expect(directory! & 0xfffn).toBe(1n);
      return words(memory, below(directory!), 0, 8);
    };
    unit.attach(0x0110, first.view);
    unit.attach(0x0190, second.view);
    unit.attachPassThrough(0x0210, 5);
    unit.attachNested(0x0211, 6, { table: frame(0x77), levels: 4 }, second.view);
    const [firstTable, secondTable] = [first, second].map(({ table }) => BigInt(table.root) << 12n);
    const rest = [0n, 0n, 0n, 0n, 0n];
    expect(entryOf(0x0110)).toEqual([0x49n, 3n | snoop, firstTable, ...rest]);
    expect(entryOf(0x0190)).toEqual([secondTable! | 0x89n, 4n | snoop, 0n, ...rest]);
    expect(entryOf(0x0210)).toEqual([0x109n, 5n | snoop, 0n, ...rest]);
    expect(entryOf(0x0211)).toEqual([secondTable! | 0xc9n, 6n | snoop, 0x77000n, ...rest]);
  });
});
