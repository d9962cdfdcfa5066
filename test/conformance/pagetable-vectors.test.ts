/**
 * The vectors of the page-table specification: entry values (10), leaf sequences (11), geometry and behaviour (12).
 *
 * The values are the formats' own specifications', and what Linux 7.2 writes; the golden files hold far more of the latter.
 */
import { describe, expect, test } from "vitest";
import { Counters, ERRNO, type IovaPage, type PhysPage } from "../../src/base/index.ts";
import {
  amdV1,
  armGeometry,
  armLpae,
  CACHE,
  MMIO,
  NOEXEC,
  PRIVILEGED,
  READ,
  riscv,
  type TableLayout,
  vtdSecondStage,
  WRITE,
  x86_64,
} from "../../src/layouts/pagetable/index.ts";
import { Arena, Gather, PageTable } from "../../src/pagetable/index.ts";

const RW = READ | WRITE;
const KiB4 = 1;
const MiB2 = 512;
const GiB = 512 * 512;
/** Bytes, as the vectors have them, to pages. */
const page = (bytes: number): number => bytes / 4096;
const iova = (bytes: number): IovaPage => page(bytes) as IovaPage;
const phys = (bytes: number): PhysPage => page(bytes) as PhysPage;
const word = (low: number, high: number): string => ((BigInt(high >>> 0) << 32n) | BigInt(low >>> 0)).toString(16);

class Machine {
  readonly arena = new Arena({ basePage: phys(0x10000) });
  readonly counters = new Counters();
  readonly gather = new Gather();
  readonly table: PageTable;
  syncs: boolean[] = [];

  constructor(layout: TableLayout) {
    const events = { sync: (gather: Gather): unknown => this.syncs.push(gather.leavesOnly) };
    this.table = new PageTable({ layout, memory: this.arena, counters: this.counters, events });
  }

  map(at: number, to: number, pages: number, prot = RW): number {
    return this.table.map(iova(at), phys(to), pages, prot);
  }

  entry(at: number): string {
    const { low, high } = this.table.translate(iova(at))!;
    return word(low, high);
  }

  /** Written to the tables by `work`. */
  written(work: () => void): number {
    const before = this.counters.snapshot();
    work();
    return this.counters.since(before).pteWrites;
  }
}

interface Vector {
  readonly name: string;
  readonly layout: TableLayout;
  /** Physical byte address, pages of the leaf, permissions, entry. */
  readonly leaves: readonly (readonly [number, number, number, string])[];
  /** Entries of leaves of 4 KiB after the machine wrote, and after they were cleaned. */
  readonly dirty?: readonly [string, string];
  /** Pointers to a table at 0x1000 (RISC-V: 0x100000), from level 1 up. */
  readonly pointers?: readonly string[];
}

const arm = (stage: 1 | 2, granule: 4 | 16 | 64, more: object = {}): TableLayout =>
  armLpae({
    stage,
    pageSizes: { 4: 0x4020_1000n, 16: 0x200_4000n, 64: 0x2001_0000n }[granule],
    inputBits: granule === 16 ? 47 : 48,
    outputBits: granule === 64 ? 52 : 48,
    ...more,
  })!;
const RWC = RW | CACHE;
const A = 0x12345000;

const VECTORS: readonly Vector[] = [
  {
    name: "VT-d second stage",
    layout: vtdSecondStage(),
    leaves: [
      [A, KiB4, RW, "12345003"],
      [A, KiB4, READ, "12345001"],
      [A, KiB4, WRITE, "12345002"],
      [0x40000000, MiB2, RW, "40000083"],
      [0x800000000, GiB, RW, "800000083"],
    ],
    dirty: ["12345203", "12345003"],
    pointers: ["1003", "1003", "1003"],
  },
  {
    name: "VT-d second stage, snooping",
    layout: vtdSecondStage({ forceSnoop: true }),
    leaves: [[A, KiB4, RW, "12345803"]],
  },
  {
    name: "x86-64",
    layout: x86_64(),
    leaves: [
      [A, KiB4, RW, "12345067"],
      [A, KiB4, READ, "12345025"],
      [A, KiB4, WRITE, "12345067"],
      [0x40000000, MiB2, RW, "400000e7"],
      [0x800000000, GiB, READ, "8000000a5"],
    ],
    pointers: ["1027", "1027", "1027"],
  },
  {
    name: "AMD v1, as Linux writes it",
    layout: amdV1(),
    leaves: [[A, KiB4, RW, "7000000012345001"]],
  },
  {
    name: "AMD v1 without forced coherence",
    layout: amdV1({ forceCoherence: false, topLevel: 5 }),
    leaves: [
      [A, KiB4, RW, "6000000012345001"],
      [0x12344000, 2, RW, "6000000012344e01"],
      [0x12340000, 16, RW, "6000000012347e01"],
      [0x12300000, 256, RW, "600000001237fe01"],
      [0x40000000, MiB2, RW, "6000000040000001"],
      [0x40000000, 2 * MiB2, RW, "60000000401ffe01"],
      [0x800000000, GiB, RW, "6000000800000001"],
    ],
    dirty: ["6000000012345041", "6000000012345001"],
    pointers: ["6000000000001201", "6000000000001401", "6000000000001601", "6000000000001801", "6000000000001a01"],
  },
  {
    name: "RISC-V Sv48 with Svnapot",
    layout: riscv({ svnapot: true }),
    leaves: [
      [A, KiB4, RW, "48d14df"],
      [A, KiB4, RW | NOEXEC, "48d14d7"],
      [A, KiB4, READ | NOEXEC, "48d1453"],
      [A, KiB4, WRITE | NOEXEC, "48d14d7"],
      [0x12340000, 16, RW | NOEXEC, "80000000048d20d7"],
      [0x40000000, MiB2, RW | NOEXEC, "100000d7"],
    ],
    pointers: ["40001", "40001", "40001"],
  },
  {
    name: "RISC-V Sv48 with Svpbmt",
    layout: riscv({ svpbmt: true }),
    leaves: [
      [A, KiB4, RW | NOEXEC | MMIO, "40000000048d14d7"],
      [A, KiB4, RW | NOEXEC, "20000000048d14d7"],
      [A, KiB4, RWC | NOEXEC, "48d14d7"],
    ],
  },
  {
    name: "Arm stage 1, 4 KiB",
    layout: arm(1, 4),
    leaves: [
      [A, KiB4, RWC, "12345f47"],
      [A, KiB4, READ | CACHE, "12345fc7"],
      [A, KiB4, RW, "12345e43"],
      [A, KiB4, RW | MMIO | NOEXEC, "60000012345e4b"],
      [A, KiB4, RWC | PRIVILEGED, "12345f07"],
      [0x40000000, MiB2, RWC, "40000f45"],
      [0x40000000, GiB, RWC, "40000f45"],
    ],
    pointers: ["1003", "1003", "1003"],
  },
  {
    name: "Arm stage 1, 4 KiB, hardware dirty",
    layout: arm(1, 4, { hardwareDirty: true }),
    leaves: [[A, KiB4, RWC, "8000012345f47"]],
    dirty: ["8000012345e43", "8000012345ec3"],
  },
  {
    name: "Arm stage 2, 4 KiB",
    layout: arm(2, 4),
    leaves: [
      [A, KiB4, RWC, "123457ff"],
      [A, KiB4, READ | CACHE, "1234577f"],
      [A, KiB4, RW, "123456d7"],
      [A, KiB4, RW | MMIO, "123456c7"],
      [0x40000000, MiB2, RWC, "400007fd"],
    ],
  },
  {
    name: "Arm stage 2, 4 KiB, forced write-back",
    layout: arm(2, 4, { forcedWriteBack: true }),
    leaves: [[A, KiB4, RWC, "123457db"]],
  },
  { name: "Arm stage 1, 64 KiB", layout: arm(1, 64), leaves: [[0xf123456780000, 16, RWC, "12345678ff47"]] },
  { name: "Arm stage 1, 16 KiB", layout: arm(1, 16), leaves: [[0x12344000, 4, RWC, "12344f47"]] },
];

describe.each(VECTORS)("10, entries: $name", ({ layout, leaves, dirty, pointers }) => {
  test.each(leaves)("a leaf of %d, %d pages, permissions %d, is %s", (to, pages, prot, expected) => {
    const machine = new Machine(layout);
    const at = to % 2 ** 46;
    expect(machine.map(at, to, pages, prot)).toBe(0);
    const found = machine.table.translate(iova(at))!;
    expect([machine.entry(at), found.leafPages]).toEqual([expected, pages]);
    // 13.1: the first, a middle and the last page lead where they must.
    for (const offset of [0, Math.floor(pages / 2), pages - 1])
      expect(machine.table.lookup((page(at) + offset) as IovaPage)).toBe(page(to) + offset);
  });

  if (dirty)
    test("a leaf that the machine wrote to, and the same cleaned", () => {
      const machine = new Machine(layout);
      machine.map(A, A, 1);
      const { table, index, low, high } = machine.table.translate(iova(A))!;
      machine.arena.store(table, index, layout.dirty!.soil(low), high);
      expect(machine.entry(A)).toBe(dirty[0]);
      expect(machine.table.translate(iova(A))!.dirty).toBe(true);
      expect(machine.table.readDirty(iova(A), 1, true, machine.gather, () => {})).toBe(0);
      expect(machine.entry(A)).toBe(dirty[1]);
    });

  if (pointers)
    test("pointers to tables", () => {
      const machine = new Machine(layout);
      machine.map(0x1000, 0, 1);
      const base = layout.addressShift === 10 ? 0x100000 : 0x1000;
      const found = [...machine.table.entries()].filter(({ leaf }) => !leaf).reverse();
      const shown = found.map(({ low, high, level }, i) => {
        const below = found[i - 1]?.table ?? machine.table.translate(iova(0x1000))!.table;
        expect(level).toBe(i + 1);
        const moved = BigInt(below) * 4096n - BigInt(base);
        return (BigInt(`0x${word(low, high)}`) - (moved >> BigInt(12 - layout.addressShift))).toString(16);
      });
      expect(shown).toEqual(pointers);
    });
});

const SIZES: Readonly<Record<string, number>> = {
  "4K": 1,
  "8K": 2,
  "16K": 4,
  "32K": 8,
  "64K": 16,
  "2M": 512,
  "1G": GiB,
};

describe("11, leaf sequences", () => {
  const ordinary = [x86_64(), vtdSecondStage(), riscv(), arm(1, 4)];
  const amd = amdV1();
  const napot = riscv({ svnapot: true });
  const cases: [TableLayout[], number, number, number, string, number?][] = [
    [ordinary, 0x3fe400000, 0x3fe400000, 0x4c0600000 - 0x3fe400000, "14x2M 3x1G 3x2M"],
    [[...ordinary, amd], 0xfef80000, 0x208b95d000, 128 * 1024, "32x4K"],
    [ordinary, 0x1ff000, 0x1ff000, 0x402000, "1x4K 2x2M 1x4K"],
    [ordinary, 0x200000, 0x201000, 4 * 1024 * 1024, "1024x4K"],
    [[amd], 0x1000, 0x1000, 64 * 1024, "1x4K 1x8K 1x16K 1x32K 1x4K", 16],
    [[amd], 0x10000, 0x10000, 0x1f000, "1x64K 1x32K 1x16K 1x8K 1x4K", 31],
    [[napot], 0x8000, 0x8000, 0x2a000, "8x4K 2x64K 2x4K", 42],
  ];
  for (const [layouts, at, to, length, expected, items] of cases)
    for (const layout of layouts)
      test(`${layout.name}: ${at.toString(16)} to ${to.toString(16)}, ${length.toString(16)} bytes: ${expected}`, () => {
        const machine = new Machine(layout);
        expect(machine.map(at, to, page(length))).toBe(0);
        const leaves: [number, number][] = [];
        for (let n = page(at); n < page(at + length); ) {
          const { leafPages } = machine.table.translate(n as IovaPage)!;
          if (leaves.at(-1)?.[1] === leafPages) leaves.at(-1)![0]++;
          else leaves.push([1, leafPages]);
          n += leafPages;
        }
        expect(leaves).toEqual(
          expected.split(" ").map((run) => {
            const [count, size] = run.split("x");
            return [Number(count), SIZES[size!]];
          }),
        );
        if (items !== undefined) expect(machine.counters.leavesWritten).toBe(items);
        expect(machine.table.unmap(iova(at), page(length), machine.gather)).toBe(page(length));
      });
});

describe("12, geometry", () => {
  test.each([
    [0xfffff000, [0, 0, 3, 511, 511]],
    [0x7ffffffff000, [0, 255, 511, 511, 511]],
    [0xffffbff000, [0, 1, 511, 509, 511]],
  ])("indexes of %d, from the top", (at, path) => {
    const machine = new Machine(x86_64({ levels: 5 }));
    machine.map(at, 0, 1);
    expect([...machine.table.entries()].at(-1)!.path).toEqual(path);
  });

  test.each([
    ["4 KiB, 48", 1, 0x1000n, 48, 0, 9],
    ["4 KiB, 39", 1, 0x1000n, 39, 1, 9],
    ["4 KiB, 40", 1, 0x1000n, 40, 0, 1],
    ["4 KiB, 40, stage 2: concatenated", 2, 0x1000n, 40, 1, 10],
    ["4 KiB, 32", 1, 0x1000n, 32, 1, 2],
    ["16 KiB, 48", 1, 0x4000n, 48, 0, 1],
    ["16 KiB, 47", 1, 0x4000n, 47, 1, 11],
    ["16 KiB, 36", 1, 0x4000n, 36, 2, 11],
    ["64 KiB, 48", 1, 0x10000n, 48, 1, 6],
    ["64 KiB, 52", 1, 0x10000n, 52, 1, 10],
    ["64 KiB, 42", 1, 0x10000n, 42, 2, 13],
  ] as const)("Arm, %s: start level and top index bits", (_name, stage, pageSizes, inputBits, startLevel, topBits) => {
    const geometry = armGeometry({ stage, pageSizes, inputBits, outputBits: inputBits === 40 ? 40 : 48 })!;
    expect([geometry.startLevel, geometry.topIndexBits]).toEqual([startLevel, topBits]);
  });
});

describe.each([
  ["x86-64", x86_64()],
  ["VT-d second stage", vtdSecondStage()],
])("12, behaviour: %s", (_name, layout) => {
  const fresh = (): Machine => new Machine(layout);

  test("a first page writes three pointers and itself, the next one only itself", () => {
    const machine = fresh();
    expect(machine.written(() => machine.map(0x1000, 0x1000, 1))).toBe(4);
    expect(machine.written(() => machine.map(0x2000, 0x2000, 1))).toBe(1);
    const frames = machine.arena.framesInUse;
    expect(machine.written(() => machine.map(0x200000, 0x200000, MiB2))).toBe(1);
    expect(machine.arena.framesInUse).toBe(frames); // no leaf table
    expect(machine.written(() => machine.table.unmap(iova(0x1000), 1, machine.gather))).toBe(1);
    expect(machine.gather.leavesOnly).toBe(true);
    expect(machine.map(0x201000, 0x1000, 1)).toBe(-ERRNO.EADDRINUSE);
    expect(machine.table.mappedPages).toBe(0);
    expect(machine.table.unmap(iova(0x201000), 1, machine.gather)).toBe(0);
    expect(machine.table.unmap(iova(0x200000), 1, machine.gather)).toBe(MiB2);
  });

  test("a covering unmap frees the table, and cached table pointers must go", () => {
    const machine = fresh();
    machine.map(0x400000, 0x1000, MiB2);
    expect(machine.written(() => machine.table.unmap(iova(0x400000), MiB2, machine.gather))).toBe(513);
    expect([machine.gather.tables.length, machine.gather.leavesOnly]).toEqual([1, false]);
    const frames = machine.arena.framesInUse;
    machine.table.complete(machine.gather);
    expect(machine.arena.framesInUse).toBe(frames - 1);
  });

  test("13.4: a detached table is not used again before the gather is complete", () => {
    const machine = fresh();
    machine.map(0x400000, 0x1000, MiB2);
    machine.table.unmap(iova(0x400000), MiB2, machine.gather);
    const [waiting] = machine.gather.tables.frames;
    machine.map(0x600000, 0x1000, 1);
    expect(machine.table.translate(iova(0x600000))!.table).not.toBe(machine.arena.basePage + waiting!);
    machine.table.complete(machine.gather);
    machine.map(0x800000, 0x1000, 1);
    expect(machine.table.translate(iova(0x800000))!.table).toBe(machine.arena.basePage + waiting!);
  });

  test("a large leaf takes the place of an empty table, and map invalidates once", () => {
    const machine = fresh();
    machine.map(0x400000, 0x1000, MiB2);
    for (let n = 0; n < 512; n++) machine.table.unmap(iova(0x400000 + n * 4096), 1, machine.gather);
    machine.table.complete(machine.gather);
    const frames = machine.arena.framesInUse;
    expect(machine.map(0x400000, 0x400000, MiB2)).toBe(0);
    expect(machine.syncs).toEqual([false]);
    expect(machine.arena.framesInUse).toBe(frames - 1);
  });

  test("but not of one with a single live leaf", () => {
    const machine = fresh();
    machine.map(0x400000, 0x1000, MiB2);
    for (let n = 0; n < 511; n++) machine.table.unmap(iova(0x400000 + n * 4096), 1, machine.gather);
    machine.table.complete(machine.gather);
    expect(machine.map(0x400000, 0x400000, MiB2)).toBe(-ERRNO.EADDRINUSE);
    expect([machine.table.mappedPages, machine.syncs]).toEqual([0, []]);
  });

  test("a map that meets something says how far it came", () => {
    const machine = fresh();
    machine.map(0x4000, 0x1000, 1);
    expect(machine.map(0x3000, 0x9000, 2)).toBe(-ERRNO.EADDRINUSE);
    expect(machine.table.mappedPages).toBe(1);
    expect(machine.table.unmap(iova(0x3000), 1, machine.gather)).toBe(1);
  });

  test("half a page, a page and a half, no permission, past the end: refused", () => {
    const { table } = fresh();
    expect(table.mapBytes(0n, 0n, 0x800n, RW)).toBe(-ERRNO.ENXIO);
    expect(table.mapBytes(0n, 0n, 0x1800n, RW)).toBe(-ERRNO.ENXIO);
    expect(table.mapBytes(0n, 0n, 0x1000n, 0)).toBe(-ERRNO.EINVAL);
    expect(table.mapBytes(1n << 48n, 0n, 0x1000n, RW)).toBe(-ERRNO.ERANGE);
  });
});

describe("2, AMD v1", () => {
  test("the top grows for a far address, and what was mapped stays", () => {
    const machine = new Machine(amdV1());
    machine.map(0x1000, 0x5000, 1);
    const { root } = machine.table;
    expect(machine.map(2 ** 50, 0x6000, 1)).toBe(0);
    expect(machine.table.topLevel).toBe(4);
    expect(machine.table.root).not.toBe(root);
    expect([0x1000, 2 ** 50].map((at) => machine.table.lookup(iova(at)))).toEqual([5, 6]);
  });

  test("a refused contiguous leaf changes nothing, tables under its first items included", () => {
    const machine = new Machine(amdV1());
    for (const at of [0x400000, 0x600000]) machine.map(at, 0x1000, 1);
    machine.table.unmap(iova(0x400000), 1, machine.gather); // an empty table, then one with a live leaf
    machine.table.complete(machine.gather);
    const before = [...machine.table.entries()];
    expect(machine.map(0x400000, 0x400000, 2 * MiB2)).toBe(-ERRNO.EADDRINUSE);
    expect([...machine.table.entries()]).toEqual(before);
    expect(machine.syncs).toEqual([]);
  });
});
