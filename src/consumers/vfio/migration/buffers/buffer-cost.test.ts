/** The arithmetic of a buffer's bookkeeping, row by row, and that buffers count the same. */
import { describe, expect, test } from "vitest";
import { GiB, MiB, PAGE_SIZE, type PhysPage } from "../../../../base/index.ts";
import { type BufferForm, bookkeepingBytes, savedByPageList } from "./buffer-cost.ts";
import { PageList, PageRuns, RunBuilder } from "./page-stores.ts";
import { ScatterTable, scatterLinks, scatterTableBytes } from "./scatter-table.ts";

const scattered = (pages: number): { pages: number; runs: number } => ({ pages, runs: pages });
const KEPT = { keepsAddresses: true };

describe("per gigabyte of scattered pages", () => {
  const gigabyte = scattered(GiB / PAGE_SIZE);
  test.each([
    ["a scatter table takes 32.25 bytes a page, 8.06 MiB", bookkeepingBytes("scatterlist", gigabyte), 8.06],
    ["a page list and the device's addresses take 16, 4 MiB", bookkeepingBytes("page-list", gigabyte, KEPT), 4],
    ["a page list alone takes 8, 2 MiB", bookkeepingBytes("page-list", gigabyte), 2],
    ["runs alone take 16, 4 MiB, if no two pages lie together", bookkeepingBytes("runs", gigabyte), 4],
    [
      "without an address space the addresses are needed, 4 MiB",
      bookkeepingBytes("page-list", gigabyte, { isEachPage: true }),
      4,
    ],
  ])("%s", (_what, bytes, mebibytes) => expect(bytes / MiB).toBeCloseTo(mebibytes, 2));

  test("runs take 16 bytes in all if all pages lie together", () =>
    expect(bookkeepingBytes("runs", { pages: GiB / PAGE_SIZE, runs: 1 })).toBe(16));
});

test.each([
  [1, 32, 16, 8, 0],
  [128, 4096, 2048, 1024, 2032],
  [129, 4160, 2064, 1032, 2080],
  [512, 16_512, 8192, 4096, 8304],
  [2048, 66_048, 32_768, 16_384, 33_264],
  [16_384, 528_384, 262_144, 131_072, 266_224],
  [262_144, 8_454_656, 4_194_304, 2_097_152, 4_260_336],
])(
  "%i scattered pages: table %i, page list with addresses %i, page list alone %i, saved %i",
  (pages, table, kept, list, saved) => {
    expect(bookkeepingBytes("scatterlist", scattered(pages))).toBe(table);
    expect(bookkeepingBytes("page-list", scattered(pages), KEPT)).toBe(kept);
    expect(bookkeepingBytes("page-list", scattered(pages))).toBe(list);
    expect(savedByPageList(pages)).toBe(pages === 1 ? 0 : saved);
  },
);

test("in blocks of 2 MiB the page list is 254 times the scatter table, and runs are half of it", () => {
  const blocks = { pages: GiB / PAGE_SIZE, runs: 512 };
  const bytes = (form: BufferForm): number => bookkeepingBytes(form, blocks, form === "page-list" ? KEPT : {});
  expect([bytes("scatterlist"), bytes("page-list"), bytes("runs")]).toEqual([16_512, 4_194_304, 8192]);
});

test("runs are never more than a scatter table, whatever lies together", () => {
  for (let runs = 1; runs <= 2000; runs++)
    expect(bookkeepingBytes("runs", { pages: 2000, runs })).toBeLessThanOrEqual(
      bookkeepingBytes("scatterlist", { pages: 2000, runs }),
    );
});

describe("what is counted is what is held", () => {
  const runsOf = (count: number): readonly (readonly [PhysPage, number])[] => {
    const builder = new RunBuilder();
    for (let i = 0; i < count; i++) builder.add((i * 2 + 5) as PhysPage, 1);
    return builder.runs;
  };

  test.each([1, 2, 127, 128, 129, 254, 255, 256, 1000])(
    "a scatter table of %i entries has the bytes of its entries and links",
    (entries) => {
      const table = new ScatterTable(runsOf(entries));
      expect(table.bytes).toBe(scatterTableBytes(entries));
      expect(table.bytes).toBe(32 * (entries + scatterLinks(entries)));
      const pages = Array.from({ length: entries }, (_, i) => table.pageAt(i));
      expect(pages).toEqual(Array.from({ length: entries }, (_, i) => i * 2 + 5));
      expect(table.pageAt(0)).toBe(5); // also backwards
    },
  );

  test("page lists take 8 bytes a page, runs 16 a run", () => {
    expect(new PageList(runsOf(100), 100).bytes).toBe(800);
    expect(new PageRuns(runsOf(100), 100).bytes).toBe(1600);
    expect(new PageRuns([[7 as PhysPage, 100]], 100).bytes).toBe(16);
  });

  test("all three find the same pages", () => {
    const runs = [
      [100, 3],
      [7, 1],
      [50, 600],
      [8, 2],
    ].map(([page, pages]) => [page as PhysPage, pages!] as const);
    const stores = [new PageList(runs, 606), new PageRuns(runs, 606), new ScatterTable(runs)];
    for (const index of [0, 2, 3, 4, 605, 604, 603, 300]) {
      const found = stores.map((store) => store.pageAt(index));
      expect(new Set(found).size, `page ${index}`).toBe(1);
    }
    const bytesOf = (vecs: readonly { length: number }[]): number => vecs.reduce((sum, { length }) => sum + length, 0);
    for (const store of stores) expect(bytesOf(store.vecs(0, 606))).toBe(606 * PAGE_SIZE);
    expect(stores[1]!.vecs(2, 3)).toEqual([
      { phys: 102 * PAGE_SIZE, length: PAGE_SIZE },
      { phys: 7 * PAGE_SIZE, length: PAGE_SIZE },
      { phys: 50 * PAGE_SIZE, length: 600 * PAGE_SIZE },
    ]);
  });

  test("an entry of a scatter table is at most 4 GiB less a page: its length has 32 bits", () => {
    const table = new ScatterTable([[0 as PhysPage, 2 ** 21]]);
    expect(table.entries).toBe(3);
    expect(table.pageAt(2 ** 21 - 1)).toBe(2 ** 21 - 1);
  });
});
