/** Tables of a unit, read from a snapshot: against tables that the stack itself built, and against damage. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Counters, DmaError, type IovaPage, type PhysPage } from "../base/index.ts";
import { READ, type TableLayout, vtdSecondStage, WRITE, x86_64 } from "../layouts/pagetable/index.ts";
import {
  ABSENT_PASID_ENTRY,
  CONTEXT_ENTRY,
  encodeEntry,
  PASID_DIRECTORY_ENTRY,
  PASID_ENTRY,
  type PasidEntry,
  ROOT_ENTRY,
  SCALABLE_CONTEXT_ENTRY,
  SCALABLE_ROOT_ENTRY,
} from "../layouts/vtd/index.ts";
import { Arena, PageTable } from "../pagetable/index.ts";
import { type AddressSpace, leavesBySize } from "./address-space.ts";
import { Snapshot } from "./snapshot.ts";
import { superpageAdvice } from "./superpages.ts";
import { itemsIn, type Mapping } from "./table-tree.ts";
import { readUnitTables } from "./tables.ts";

/** Physical pages by number, as 512 words each. */
type Image = Map<number, BigUint64Array>;

const pageOf = (image: Image, page: number): BigUint64Array => {
  const words = image.get(page) ?? new BigUint64Array(512);
  image.set(page, words);
  return words;
};

const put = (image: Image, page: number, index: number, words: readonly bigint[]): void => {
  const into = pageOf(image, page);
  for (const [i, word] of words.entries()) into[index + i] = word;
};

function snapshotBytes(image: Image): Uint8Array {
  const pages = [...image].sort(([a], [b]) => a - b);
  const bytes = new Uint8Array(16 + pages.length * 4104);
  const view = new DataView(bytes.buffer);
  bytes.set(new TextEncoder().encode("DMASNAP1"));
  view.setUint32(8, 4096, true);
  view.setUint32(12, pages.length, true);
  for (const [i, [page, words]] of pages.entries()) {
    const at = 16 + i * 4104;
    view.setBigUint64(at, BigInt(page) << 12n, true);
    for (const [w, word] of words.entries()) view.setBigUint64(at + 8 + w * 8, word, true);
  }
  return bytes;
}

const snapshotOf = (image: Image): Snapshot => Snapshot.parse(snapshotBytes(image));

/** Puts the frames of an arena where `place` says they are in memory. */
function dump(image: Image, arena: Arena, place = (page: number): number => page): void {
  for (let frame = 0; frame < arena.framesInUse; frame++) {
    const page = (arena.basePage + frame) as PhysPage;
    const words = pageOf(image, place(page));
    for (let i = 0; i < 512; i++)
      words[i] = (BigInt(arena.high(page, i) >>> 0) << 32n) | BigInt(arena.low(page, i) >>> 0);
  }
}

const ROOT = 0x100;
const CONTEXT = 0x101;
const DIRECTORY = 0x102;
const PASID_TABLE = 0x103;

/** Legacy mode with one device, 0000:02:03.1. */
function legacy(image: Image, root: number, levels: number, translationType = 0): void {
  put(image, ROOT, 2 * 2, encodeEntry(ROOT_ENTRY, { present: true, contextTable: CONTEXT as PhysPage }));
  put(
    image,
    CONTEXT,
    ((3 << 3) | 1) * 2,
    encodeEntry(CONTEXT_ENTRY, {
      present: true,
      faultProcessingDisable: false,
      translationType,
      secondStageTable: root as PhysPage,
      addressWidth: levels - 2,
      domainId: 77,
    }),
  );
}

/** Scalable mode with one device, 0000:00:1f.7, and one PASID of it. */
function scalable(image: Image, pasid: number, entry: Partial<PasidEntry>): void {
  put(
    image,
    ROOT,
    0,
    encodeEntry(SCALABLE_ROOT_ENTRY, {
      lowerPresent: false,
      lowerContextTable: 0 as PhysPage,
      upperPresent: true,
      upperContextTable: CONTEXT as PhysPage,
    }),
  );
  put(
    image,
    CONTEXT,
    127 * 4,
    encodeEntry(SCALABLE_CONTEXT_ENTRY, {
      present: true,
      faultProcessingDisable: false,
      deviceTlbEnable: true,
      pasidEnable: true,
      pageRequestEnable: false,
      pasidDirectorySize: 2,
      pasidDirectory: DIRECTORY as PhysPage,
      requestPasid: 0,
      requestPrivileged: false,
    }),
  );
  const directoryEntry = { present: true, faultProcessingDisable: false, pasidTable: PASID_TABLE as PhysPage };
  put(image, DIRECTORY, pasid >> 6, encodeEntry(PASID_DIRECTORY_ENTRY, directoryEntry));
  put(
    image,
    PASID_TABLE,
    (pasid & 63) * 8,
    encodeEntry(PASID_ENTRY, { ...ABSENT_PASID_ENTRY, present: true, domainId: 5, ...entry }),
  );
}

const SCALABLE_REGISTER = BigInt(ROOT) * 4096n + 0x400n;
const LEGACY = { root: BigInt(ROOT) * 4096n, isRegister: true };

interface Request {
  readonly iova: number;
  readonly phys: number;
  readonly pages: number;
  readonly prot: number;
}

/** Ranges of which many are aligned, contiguous or neighbours, in `window` pages from each of `bases`. */
const requests = (bases: readonly number[], window: number, physBase = 0x40000): fc.Arbitrary<Request[]> =>
  fc.array(
    fc.record({
      iova: fc.tuple(fc.constantFrom(...bases), fc.nat(window / 64 - 1)).map(([base, n]) => base + n * 64),
      phys: fc.nat(window / 64 - 1).map((n) => physBase + n * 64),
      pages: fc.oneof(fc.integer({ min: 1, max: 64 }), fc.constantFrom(512, 1024, 1500)),
      prot: fc.constantFrom(READ, WRITE, READ | WRITE),
    }),
    { maxLength: 24 },
  );

type Model = Map<number, { phys: number; prot: number }>;

/** Builds the tables, and page by page what they must say. */
function build(layout: TableLayout, arena: Arena, plan: readonly Request[]): { table: PageTable; model: Model } {
  const table = new PageTable({ layout, memory: arena, counters: new Counters() });
  const model: Model = new Map();
  for (const { iova, phys, pages, prot } of plan) {
    table.map(iova as IovaPage, phys as PhysPage, pages, prot);
    const shown = layout.name === "x86-64" ? prot | READ : prot;
    for (let i = 0; i < table.mappedPages; i++) model.set(iova + i, { phys: phys + i, prot: shown });
  }
  return { table, model };
}

function expand(mappings: readonly Mapping[]): Model {
  const model: Model = new Map();
  for (const { iova, phys, pages, prot } of mappings)
    for (let i = 0; i < pages; i++) {
      if (model.has(iova + i)) throw new Error(`page ${iova + i} is mapped twice`);
      model.set(iova + i, { phys: phys + i, prot });
    }
  return model;
}

const sorted = (model: Model): [number, { phys: number; prot: number }][] => [...model].sort(([a], [b]) => a - b);

const onlySpace = (snapshot: Snapshot, root: bigint): AddressSpace => {
  const { devices } = readUnitTables(snapshot, { root, isRegister: true });
  expect(devices).toHaveLength(1);
  return devices[0]!.space!;
};

describe("what the stack maps is what is read back", () => {
  for (const levels of [3, 4, 5] as const)
    test(`second stage, ${levels} levels, legacy mode`, () =>
      fc.assert(
        fc.property(requests([0, 2 ** (9 * levels) - 8192], 4096), (plan) => {
          const arena = new Arena({ basePage: 0x2000 as PhysPage });
          const { table, model } = build(vtdSecondStage({ levels }), arena, plan);
          const image: Image = new Map();
          dump(image, arena);
          legacy(image, table.root, levels);
          const { devices } = readUnitTables(snapshotOf(image), LEGACY);
          expect(devices).toMatchObject([
            { bdf: "0000:02:03.1", mode: "legacy second-stage", levels, domainId: 77, problems: [], missing: [] },
          ]);
          const space = devices[0]!.space!;
          expect(sorted(expand(space.mappings))).toEqual(sorted(model));
          expect(space.tablePages).toBe(arena.framesInUse);
          const leaves = [...table.entries()].filter((entry) => entry.leaf);
          expect(leavesBySize(space).reduce((sum, size) => sum + size.leaves, 0)).toBe(leaves.length);
        }),
        { numRuns: 40 },
      ));

  for (const levels of [4, 5] as const)
    test(`first stage, ${levels} levels, both halves, scalable mode`, () =>
      fc.assert(
        fc.property(requests([0x80000, 2 ** 52 - 8192], 4096), fc.nat(2 ** 15 - 1), (plan, pasid) => {
          const arena = new Arena({ basePage: 0x2000 as PhysPage });
          const { table, model } = build(x86_64({ levels, signExtended: true }), arena, plan);
          const image: Image = new Map();
          dump(image, arena);
          scalable(image, pasid, { translationType: 1, firstStagePagingMode: levels - 4, firstStageTable: table.root });
          const { devices } = readUnitTables(snapshotOf(image), { root: SCALABLE_REGISTER });
          expect(devices).toMatchObject([
            {
              bdf: "0000:00:1f.7",
              pasid,
              withoutPasid: pasid === 0,
              mode: "scalable first-stage",
              levels,
              domainId: 5,
            },
          ]);
          expect(sorted(expand(devices[0]!.space!.mappings))).toEqual(sorted(model));
        }),
        { numRuns: 40 },
      ));

  test("nested: both stages together, and what the second does not map is counted", () =>
    fc.assert(
      fc.property(requests([0], 4096, 0x20000), requests([0x20000], 4096, 0x60000), (firstPlan, secondPlan) => {
        const guest = new Arena({ basePage: 0x10000 as PhysPage });
        const host = new Arena({ basePage: 0x2000 as PhysPage });
        const first = build(x86_64({ signExtended: true }), guest, firstPlan);
        // the guest's table pages lie in memory backwards, so a pointer taken for a physical page would fail
        const place = (page: number): number => 0x50000 + 0xfff - (page - 0x10000);
        const ofTables = Array.from({ length: guest.framesInUse }, (_, i) => ({
          iova: 0x10000 + i,
          phys: place(0x10000 + i),
          pages: 1,
          prot: READ | WRITE,
        }));
        const second = build(vtdSecondStage(), host, [...ofTables, ...secondPlan]);
        const image: Image = new Map();
        dump(image, host);
        dump(image, guest, place);
        scalable(image, 9, {
          translationType: 3,
          addressWidth: 2,
          secondStageTable: second.table.root,
          firstStageTable: first.table.root,
        });
        const model: Model = new Map();
        let unmapped = 0;
        for (const [iova, { phys, prot }] of first.model) {
          const behind = second.model.get(phys);
          if (behind) model.set(iova, { phys: behind.phys, prot: prot & behind.prot });
          else unmapped++;
        }
        const space = onlySpace(snapshotOf(image), SCALABLE_REGISTER);
        expect(sorted(expand(space.mappings))).toEqual(sorted(model));
        expect(space.unmappedPages).toBe(unmapped);
        expect(space.tablePages).toBe(guest.framesInUse + host.framesInUse);
        for (const { iova, phys, pages, leafPages } of space.mappings)
          expect([iova % leafPages, phys % leafPages, pages % leafPages]).toEqual([0, 0, 0]);
      }),
      { numRuns: 40 },
    ));

  test("the mode is recognised from the entries when only an address is given", () => {
    const image: Image = new Map();
    scalable(image, 0, { translationType: 4 });
    expect(readUnitTables(snapshotOf(image), { root: BigInt(ROOT) * 4096n })).toMatchObject({
      mode: "scalable",
      devices: [{ mode: "scalable pass-through", levels: 0 }],
    });
    const old: Image = new Map();
    legacy(old, 0, 4, 2);
    expect(readUnitTables(snapshotOf(old), { root: BigInt(ROOT) * 4096n })).toMatchObject({
      mode: "legacy",
      devices: [{ mode: "legacy pass-through", levels: 0 }],
    });
  });
});

describe("what is not there, and what hardware refuses, is reported", () => {
  const base = (): { image: Image; table: PageTable; arena: Arena } => {
    const arena = new Arena({ basePage: 0x2000 as PhysPage });
    const plan = [
      { iova: 0, phys: 0x40000, pages: 3, prot: 3 },
      { iova: 2 ** 27, phys: 0x50000, pages: 2, prot: 1 },
    ];
    const { table } = build(vtdSecondStage(), arena, plan);
    const image: Image = new Map();
    dump(image, arena);
    legacy(image, table.root, 4);
    return { image, table, arena };
  };

  test("a table page that the snapshot lacks; the rest is read", () => {
    const { image } = base();
    image.delete(0x2003); // the leaf table of the first plan
    const space = onlySpace(snapshotOf(image), LEGACY.root);
    expect(space.missing).toEqual([{ what: "page table", page: 0x2003 }]);
    expect(space.mappings).toMatchObject([{ iova: 2 ** 27, pages: 2 }]);
  });

  test("the top table, the context table and the root table", () => {
    const { image, table } = base();
    image.delete(table.root);
    expect(onlySpace(snapshotOf(image), LEGACY.root)).toMatchObject({ trees: [], mappings: [], tablePages: 0 });
    image.delete(CONTEXT);
    expect(readUnitTables(snapshotOf(image), LEGACY)).toMatchObject({ devices: [], missing: [{ page: CONTEXT }] });
    image.delete(ROOT);
    expect(() => readUnitTables(snapshotOf(image), LEGACY)).toThrow(/root table 0x100000 is not among the/);
  });

  test("PASID directories and tables", () => {
    const image: Image = new Map();
    scalable(image, 70, { translationType: 4 });
    image.delete(PASID_TABLE);
    expect(readUnitTables(snapshotOf(image), { root: SCALABLE_REGISTER }).devices).toMatchObject([
      { mode: "scalable", levels: 0, missing: [{ what: "PASID table", page: PASID_TABLE }] },
    ]);
    image.delete(DIRECTORY);
    expect(readUnitTables(snapshotOf(image), { root: SCALABLE_REGISTER }).devices).toMatchObject([
      { mode: "scalable", levels: 0, missing: [{ what: "PASID directory", page: DIRECTORY }] },
    ]);
  });

  test("a table that points to itself or is met twice is followed once", () => {
    const { image, table } = base();
    put(image, table.root, 5, [(BigInt(table.root) << 12n) | 3n]);
    put(image, table.root, 6, [image.get(table.root)![0]!]);
    const space = onlySpace(snapshotOf(image), LEGACY.root);
    expect(space.repeated.map((item) => item.index)).toEqual([5, 6]);
    expect(space.mappings).toHaveLength(2);
  });

  test("a leaf where none can be, and a large page that is not aligned", () => {
    const { image, table } = base();
    put(image, table.root, 7, [0x83n]);
    put(image, 0x2002, 9, [0x8000_1083n]);
    const space = onlySpace(snapshotOf(image), LEGACY.root);
    expect(space.malformed.map(({ index, level }) => [level, index])).toEqual([
      [1, 9],
      [3, 7],
    ]);
  });

  test("permissions are what all levels allow", () => {
    const { image, table } = base();
    put(image, table.root, 0, [image.get(table.root)![0]! & ~2n]);
    expect(onlySpace(snapshotOf(image), LEGACY.root).mappings[0]).toMatchObject({ prot: READ });
  });

  test("reserved bits and reserved types", () => {
    const { image } = base();
    const words = image.get(CONTEXT)!;
    words[50] = words[50]! | 0x10n;
    expect(readUnitTables(snapshotOf(image), LEGACY).devices[0]!.problems).toEqual([
      "the context entry has reserved bits set (0x10 in word 0): requests are refused",
    ]);
    words[51] = 4n;
    expect(readUnitTables(snapshotOf(image), LEGACY).devices[0]).toMatchObject({ mode: "legacy reserved", levels: 0 });
  });

  test("table modes: abort has no tables, a reserved one is refused", () => {
    const { image } = base();
    const snapshot = snapshotOf(image);
    expect(readUnitTables(snapshot, { root: LEGACY.root + 0xc00n })).toMatchObject({ mode: "abort", devices: [] });
    expect(() => readUnitTables(snapshot, { root: LEGACY.root + 0x800n })).toThrow(/mode 2, which is reserved/);
  });

  test("one device, and an error that names the others", () => {
    const { image } = base();
    const snapshot = snapshotOf(image);
    const device = (bus: number, fn: number) => ({ ...LEGACY, device: { bus, function: fn }, segment: 1 });
    expect(readUnitTables(snapshot, device(2, 25)).devices).toMatchObject([{ bdf: "0001:02:03.1" }]);
    expect(() => readUnitTables(snapshot, device(2, 26))).toThrow(
      "no context entry for device 0001:02:03.2; there are entries for 0001:02:03.1",
    );
  });

  test("devices that share everything cost the reading of one", () => {
    const { image } = base();
    for (let bus = 0; bus < 256; bus++) put(image, ROOT, bus * 2, [BigInt(CONTEXT) * 4096n + 1n, 0n]);
    const context = [...image.get(CONTEXT)!.subarray(50, 52)];
    for (let fn = 0; fn < 256; fn++) put(image, CONTEXT, fn * 2, context);
    const { devices, leftOut } = readUnitTables(snapshotOf(image), LEGACY);
    expect([devices.length, leftOut]).toEqual([65_536, false]);
    expect(new Set(devices.map((device) => device.space)).size).toBe(1);
  });
});

describe("advice", () => {
  const spaceOf = (plan: readonly Request[]): readonly Mapping[] => {
    const arena = new Arena({ basePage: 0x2000 as PhysPage });
    const { table } = build(vtdSecondStage({ leafSizes: [0] }), arena, plan);
    const image: Image = new Map();
    dump(image, arena);
    legacy(image, table.root, 4);
    return onlySpace(snapshotOf(image), LEGACY.root).mappings;
  };

  test("counts each aligned 2 MiB that 4 KiB leaves cover contiguously", () => {
    const mappings = spaceOf([{ iova: 500, phys: 0x40000 + 500, pages: 12 + 1024 + 100, prot: 3 }]);
    expect(superpageAdvice(mappings, [0, 9, 18])).toEqual([
      { leafPages: 1, couldBePages: 512, fits: 2, misplaced: 0, first: { iova: 512, phys: 0x40200 } },
    ]);
  });

  test("counts apart what better addresses would gain, and nothing for what can gain nothing", () => {
    expect(superpageAdvice(spaceOf([{ iova: 1, phys: 0x40000, pages: 1500, prot: 3 }]), [0, 9])).toEqual([
      { leafPages: 1, couldBePages: 512, fits: 0, misplaced: 2 },
    ]);
    expect(superpageAdvice(spaceOf([{ iova: 512, phys: 0x40200, pages: 511, prot: 3 }]), [0, 9])).toEqual([]);
    expect(superpageAdvice(spaceOf([{ iova: 512, phys: 0x40200, pages: 512, prot: 3 }]), [0])).toEqual([]);
  });

  test("is not given where permissions differ", () => {
    const plan = [
      { iova: 512, phys: 0x40200, pages: 256, prot: 3 },
      { iova: 768, phys: 0x40300, pages: 256, prot: 1 },
    ];
    expect(superpageAdvice(spaceOf(plan), [0, 9])).toEqual([]);
  });

  test("follows what the mapper does when it may use large leaves", () =>
    fc.assert(
      fc.property(requests([0], 4096), (plan) => {
        const arena = new Arena({ basePage: 0x2000 as PhysPage });
        const { table } = build(vtdSecondStage({ leafSizes: [0, 9] }), arena, plan);
        const large = [...table.entries()].filter((entry) => entry.leaf && entry.level === 1).length;
        const [advice] = superpageAdvice(spaceOf(plan), [0, 9]);
        expect(advice?.fits ?? 0).toBeGreaterThanOrEqual(large); // neighbours of separate requests may join
      }),
      { numRuns: 40 },
    ));
});

describe("a snapshot", () => {
  const bytes = snapshotBytes(
    new Map([
      [5, new BigUint64Array(512).fill(0x1234_5678_9abc_def0n)],
      [2 ** 39, new BigUint64Array(512)],
    ]),
  );

  test("shows the words of its pages, and nothing elsewhere", () => {
    const snapshot = Snapshot.parse(bytes);
    expect(snapshot.pageCount).toBe(2);
    expect([snapshot.has(5 as PhysPage), snapshot.has((2 ** 39) as PhysPage), snapshot.has(6 as PhysPage)]).toEqual([
      true,
      true,
      false,
    ]);
    expect(snapshot.low(5 as PhysPage, 511) >>> 0).toBe(0x9abc_def0);
    expect(snapshot.high(5 as PhysPage, 0)).toBe(0x1234_5678);
    expect(snapshot.low(6 as PhysPage, 0)).toBe(0);
  });

  test("that is cut anywhere is refused with the offset where it ends", () => {
    for (let length = 0; length < bytes.length; length += length < 40 ? 1 : 97) {
      let error: unknown;
      try {
        Snapshot.parse(bytes.subarray(0, length));
      } catch (caught) {
        error = caught;
      }
      expect(error).toBeInstanceOf(DmaError);
      expect((error as DmaError).details.offset).toBe(length);
    }
  });

  test("says where it is damaged", () => {
    const broken = (offset: number, value: number): Uint8Array => {
      const copy = bytes.slice();
      copy[offset] = value;
      return copy;
    };
    expect(() => Snapshot.parse(broken(0, 0x45))).toThrow(/expected DMASNAP1 at offset 0, found 45 4d 41/);
    expect(() => Snapshot.parse(broken(9, 0x40))).toThrow(/offset 8 .*16384 bytes/);
    expect(() => Snapshot.parse(broken(12, 1))).toThrow(/1 pages end at offset 4120/);
    expect(() => Snapshot.parse(broken(16, 1))).toThrow(/offset 16 .*no page/);
    expect(() => Snapshot.parse(broken(16 + 7, 1))).toThrow(/offset 16 .*no page/);
    expect(() => Snapshot.parse(broken(16 + 6, 0xf))).toThrow(/offset 4120 .*must ascend/);
  });

  test("of any words is answered in bounded time", () =>
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(5), fc.nat(511), fc.nat(5), fc.bigInt({ min: 0n, max: 0xfffn })), { maxLength: 400 }),
        fc.constantFrom(0n, 0x400n),
        (entries, mode) => {
          const image: Image = new Map();
          for (let page = 0; page < 6; page++) pageOf(image, ROOT + page);
          for (const [page, index, target, flags] of entries)
            put(image, ROOT + page, index, [(BigInt(ROOT + target) << 12n) | flags]);
          for (const device of readUnitTables(snapshotOf(image), { root: LEGACY.root + mode }).devices)
            for (const tree of device.space?.trees ?? []) expect([...itemsIn(tree)].length).toBeLessThan(512 * 7);
        },
      ),
      { numRuns: 60 },
    ));
});
