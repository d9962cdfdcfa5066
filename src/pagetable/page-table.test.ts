/** What the page table promises beyond any format: its hot paths make no garbage. */
import { describe, expect, test } from "vitest";
import { bytesPerCall, NOTHING } from "../../test/models/heap-growth.ts";
import { Counters, type IovaPage, type PhysPage } from "../base/index.ts";
import { amdV1, READ, vtdSecondStage, WRITE, x86_64 } from "../layouts/pagetable/index.ts";
import { Arena } from "./arena.ts";
import { Gather } from "./gather.ts";
import { PageTable } from "./page-table.ts";
import { LeafCursor } from "./tree.ts";

describe.each([
  ["x86-64", x86_64()],
  ["VT-d second stage", vtdSecondStage()],
  ["AMD v1", amdV1()],
])("%s: no garbage, for pages below 8 TiB", (_name, layout) => {
  const table = new PageTable({
    layout,
    memory: new Arena({ basePage: 0x8000_0000 as PhysPage }),
    counters: new Counters(),
  });
  const gather = new Gather();
  const cursor = new LeafCursor();
  const page = (i: number): IovaPage => (0xf_c000 + (i & 511)) as IovaPage;
  const phys = (i: number): PhysPage => (0x10_0000 + (i & 4095) * 2) as PhysPage;
  const physPages = Float64Array.from({ length: 64 }, (_, i) => phys(i));
  const ones = new Int32Array(64).fill(1);

  test("map a page, look it up, unmap it", () => {
    const bytes = bytesPerCall(4096, (i) => {
      table.map(page(i), phys(i), 1, READ | WRITE, cursor);
      table.lookup(page(i));
      table.unmap(page(i), 1, gather);
      table.complete(gather);
    });
    expect(bytes).toBeLessThan(NOTHING);
  });

  test("map and unmap a vector, and a whole table's range: nothing for a page", () => {
    const pages = 64 + 512;
    const enough = pages / 32; // one number a call is none for a page
    const bytes = bytesPerCall(
      512,
      (i) => {
        table.mapRuns(page(0), physPages, ones, 64, READ | WRITE, cursor);
        table.unmap(page(0), 64, gather);
        table.map(page(512), phys(i), 512, READ | WRITE, cursor);
        table.unmap(page(512), 512, gather);
        table.complete(gather);
      },
      enough,
    );
    expect(bytes).toBeLessThan(enough);
  });
});

test("one small object a call would be noticed", () => {
  const kept: object[] = [{}, {}];
  expect(
    bytesPerCall(4096, (i) => {
      kept[i & 1] = { i };
    }),
  ).toBeGreaterThan(10);
});

test("a table that cannot grow to its first high address has and counts no frame more than before", () => {
  const counters = new Counters();
  const memory = new Arena({ basePage: 0x8000_0000 as PhysPage, capacityFrames: 6 });
  const table = new PageTable({ layout: amdV1(), memory, counters });
  const gather = new Gather();
  expect(table.map(1 as IovaPage, 1 as PhysPage, 1, READ)).toBe(0);
  const before = [memory.framesInUse, counters.tablePagesAllocated, counters.tableEntriesWritten];
  while (memory.allocate() >= 0 && memory.framesInUse < 5); // room for one level more, and the range needs two or three
  const full = memory.framesInUse;
  expect(table.map((2 ** 45) as IovaPage, 2 as PhysPage, 1, READ)).toBeLessThan(0);
  expect([memory.framesInUse, counters.tablePagesAllocated, counters.tableEntriesWritten]).toEqual([
    full,
    before[1],
    before[2],
  ]);
  expect(table.translate(1 as IovaPage)?.phys).toBe(1); // what was there is where it was
  expect(table.unmap(1 as IovaPage, 1, gather)).toBe(1);
});
