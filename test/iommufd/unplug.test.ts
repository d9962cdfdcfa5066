/** Beyond Linux, by option: memory that is mapped in one piece and unplugged in small ones. Exactly those entries go. */
import { describe, expect, test } from "vitest";
import type { IovaPage } from "../../src/base/index.ts";
import { type DomainTable, Iommufd, type UserTable } from "../../src/consumers/iommufd/index.ts";
import { Type1Container } from "../../src/consumers/vfio/index.ts";
import { amdV1, layoutNamed, vtdSecondStage } from "../../src/layouts/pagetable/index.ts";
import { MiB, NthFailure, Stand, VA } from "./stand.ts";

const RW = { read: true, write: true, mmio: false };
const PAGE = 4096n;
const GROUND = 0x4000_0000n;
const BLOCKS = 4;
const PAGES = BLOCKS * 512;
const WHOLE = BigInt(PAGES) * PAGE;
const WAYS = ["iommufd", "container"] as const;

const errnoOf = (call: () => unknown): string => {
  try {
    call();
    return "none";
  } catch (error) {
    return (error as { errno: string }).errno;
  }
};

/** A guest of four huge pages, mapped in one piece. */
function guest(way: (typeof WAYS)[number], splits: boolean, layout = vtdSecondStage()) {
  const stand = new Stand({ hugePages: BLOCKS, layout });
  const process = stand.process();
  const va = stand.memory(process, BLOCKS * 2 * MiB, VA, true);
  const device = stand.device();
  const failure = new NthFailure();
  const iommufd = new Iommufd({
    accountMode: "memory",
    failurePoint: failure.point,
    ...(splits && { rules: { unmapSplits: true } }),
  });
  const ioas = iommufd.createIoas();
  const container = new Type1Container({ v2: true, unmapSplits: splits });
  if (way === "container") {
    container.attach({ devices: [device] });
    container.map(process, va, GROUND, WHOLE, RW);
  } else {
    iommufd.attach(iommufd.bind(device), ioas.id);
    iommufd.map(ioas, process, va, { iova: GROUND, length: WHOLE });
  }
  const table: UserTable = way === "container" ? container.tables[0]! : ioas.tables[0]!;
  const first = Number(GROUND / PAGE);
  return {
    stand,
    process,
    table,
    counters: (table as DomainTable).domain.counters,
    entries: (): number => (way === "container" ? container.mappings.length : ioas.areas.length),
    unmap: (iova: bigint, length: bigint): bigint =>
      way === "container" ? container.unmap(iova, length) : ioas.unmap(iova, length),
    unmapAll: (): bigint => (way === "container" ? container.unmapAll() : ioas.unmapAll()),
    /** Pages of the leaf at a page of the guest; 0: none. */
    leaf: (page: number): number => table.leafAt(first + page)?.leafUnits ?? 0,
    /** Pages of the guest that its device reaches, each at its own place. */
    reached: (): number[] => {
      const pages = Array.from({ length: PAGES }, (_, page) => page);
      const found = pages.filter((page) => {
        const at = stand.reach(device, (first + page) * 4096);
        if (at >= 0) expect(at).toBe(stand.pageOf(process.memory, VA + page * 4096));
        return at >= 0;
      });
      stand.unit.faults.length = 0;
      return found;
    },
    locked: (): number => process.memory.locked.pages,
  };
}

describe.each(WAYS)("memory in one piece, by %s", (way) => {
  test("gives up a block that is a leaf, and no entry is written", () => {
    const { unmap, leaf, reached, locked, entries, counters, unmapAll } = guest(way, true);
    const written = counters.leavesWritten;
    expect(unmap(GROUND + 2n * 512n * PAGE, 512n * PAGE)).toBe(512n * PAGE);
    expect([0, 512, 1024, 1536].map(leaf)).toEqual([512, 512, 0, 512]);
    expect([counters.leavesWritten - written, locked(), entries()]).toEqual([0, PAGES - 512, 2]);
    expect(reached().length).toBe(PAGES - 512);
    expect(unmapAll()).toBe(WHOLE - 512n * PAGE);
    expect(locked()).toBe(0);
  });

  test("gives up pages out of the middle of leaves: those leaves become small ones, and only these pages go", () => {
    const { unmap, leaf, reached, locked } = guest(way, true);
    const [from, to] = [512 + 300, 1024 + 7];
    expect(unmap(GROUND + BigInt(from) * PAGE, BigInt(to - from) * PAGE)).toBe(BigInt(to - from) * PAGE);
    expect([0, 512, from - 1, from, to - 1, to, 1536].map(leaf)).toEqual([512, 1, 1, 0, 0, 1, 512]);
    expect(reached()).toEqual(
      Array.from({ length: PAGES }, (_, page) => page).filter((page) => page < from || page >= to),
    );
    expect(locked()).toBe(PAGES - (to - from));
  });

  test("goes piece by piece until nothing is left, in any order", () => {
    const { unmap, reached, locked, entries } = guest(way, true);
    for (const page of [5, 2047, 0, 1030, 1031, 511]) expect(unmap(GROUND + BigInt(page) * PAGE, PAGE)).toBe(PAGE);
    expect(reached().length).toBe(PAGES - 6);
    expect(unmap(GROUND, WHOLE)).toBe(WHOLE - 6n * PAGE);
    expect([locked(), entries(), reached().length]).toEqual([0, 0, 0]);
  });

  test("without the option is refused, and all of it stays", () => {
    const { unmap, reached } = guest(way, false);
    expect(errnoOf(() => unmap(GROUND + PAGE, PAGE))).toBe(way === "container" ? "EINVAL" : "ENOENT");
    expect(reached().length).toBe(PAGES);
  });

  test("is cut in every format", () => {
    for (const layout of [amdV1({ leafSizes: [0, 9] }), layoutNamed("x86-64"), layoutNamed("riscv-sv48")]) {
      const { unmap, reached } = guest(way, true, layout);
      unmap(GROUND + 600n * PAGE, 3n * PAGE);
      expect(reached().length).toBe(PAGES - 3);
    }
  });

  test("stays as it is if there is no memory for the tables of smaller leaves", () => {
    const { unmap, reached, table, locked, entries } = guest(way, true);
    ((table as DomainTable).domain as unknown as { arena: { failAt: number } }).arena.failAt = 1;
    expect(errnoOf(() => unmap(GROUND + PAGE, PAGE))).toBe("ENOMEM");
    expect([reached().length, locked(), entries()]).toEqual([PAGES, PAGES, 1]);
  });
});

test("a leaf of a gigabyte is split no further than the cut needs", () => {
  const stand = new Stand();
  const iommu = stand.iommu.openTable(false);
  iommu.mapRuns(262_144, Float64Array.of(262_144), Int32Array.of(262_144), 1, RW);
  const { counters, table } = iommu.domain;
  iommu.splitAt(262_144 + 5 * 512);
  expect(counters.tablePagesAllocated).toBe(3); // two for the leaf, one for its parts of 2 MiB
  expect(table.translate((262_144 + 5 * 512) as IovaPage)?.leafPages).toBe(512);
  iommu.splitAt(262_144 + 5 * 512 + 1);
  expect([0, 4, 5, 6].map((block) => table.translate((262_144 + block * 512) as IovaPage)?.leafPages)).toEqual([
    512, 512, 1, 512,
  ]);
});

test("a container that has no entry left cuts a mapping at one end, not in the middle", () => {
  const stand = new Stand();
  const process = stand.process();
  const va = stand.memory(process, 8 * 4096);
  const container = new Type1Container({ v2: true, unmapSplits: true, entryLimit: 1 });
  container.attach({ devices: [stand.device()] });
  container.map(process, va, GROUND, 8n * PAGE, RW);
  expect(errnoOf(() => container.unmap(GROUND + PAGE, PAGE))).toBe("ENOSPC");
  expect(container.unmap(GROUND + 7n * PAGE, PAGE)).toBe(PAGE);
  expect(process.memory.locked.pages).toBe(7);
});

test("what an access holds is not cut, and neither is what begins or ends in the middle of a page", () => {
  const { stand, process } = guest("iommufd", true);
  const iommufd = new Iommufd({ rules: { unmapSplits: true } });
  const ioas = iommufd.createIoas();
  iommufd.attach(iommufd.bind(stand.device()), ioas.id);
  iommufd.map(ioas, process, BigInt(VA), { iova: GROUND, length: 8n * PAGE });
  expect(errnoOf(() => ioas.unmap(GROUND + 100n, PAGE))).toBe("EINVAL");
  const access = iommufd.createAccess({ pins: true });
  access.use(ioas);
  access.pin(GROUND, PAGE, true);
  expect(errnoOf(() => ioas.unmap(GROUND + PAGE, PAGE))).toBe("EINVAL");
  access.unpin(GROUND, PAGE);
  expect(ioas.unmap(GROUND + PAGE, PAGE)).toBe(PAGE);
});
