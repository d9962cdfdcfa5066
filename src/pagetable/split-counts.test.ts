/** What was written and what was cleared meet when nothing is mapped any more: the leak test of every driver rests on it. */
import { describe, expect, test } from "vitest";
import { Counters, type IovaPage, type PhysPage } from "../base/index.ts";
import { amdV1, READ, type TableLayout, vtdSecondStage, WRITE, x86_64 } from "../layouts/pagetable/index.ts";
import { Arena, Gather, PageTable } from "./index.ts";

const LAYOUTS: readonly [string, TableLayout, number][] = [
  ["vtd-second-stage", vtdSecondStage(), 512],
  ["x86-64", x86_64(), 512],
  ["amd-v1, a leaf of 2 MiB", amdV1(), 512],
  ["amd-v1, a contiguous leaf of 32 KiB", amdV1(), 8],
  ["amd-v1, a contiguous leaf of 1 MiB", amdV1(), 256],
];

describe.each(LAYOUTS)("%s", (_name, layout, pages) => {
  const made = () => {
    const counters = new Counters();
    const table = new PageTable({ layout, memory: new Arena({ basePage: 0x8000_0000 as PhysPage }), counters });
    return { counters, table, gather: new Gather() };
  };

  test("a leaf of which a part is unmapped, then the rest, was cleared as often as written", () => {
    const { counters, table, gather } = made();
    expect(table.map(0 as IovaPage, 4096 as PhysPage, pages, READ | WRITE)).toBe(0);
    expect(table.split(1 as IovaPage, 1, gather)).toBe(0);
    expect(table.unmap(0 as IovaPage, 1, gather)).toBe(1);
    expect(table.unmap(1 as IovaPage, pages - 1, gather)).toBe(pages - 1);
    expect(counters.leavesCleared).toBe(counters.leavesWritten);
  });

  test("leaves that become one were cleared as often as written", () => {
    const { counters, table, gather } = made();
    for (let page = 0; page < pages; page++)
      expect(table.map(page as IovaPage, (4096 + page) as PhysPage, 1, READ | WRITE)).toBe(0);
    expect(table.collapse(0 as IovaPage, pages, gather)).toBe(0);
    expect(table.unmap(0 as IovaPage, pages, gather)).toBe(pages);
    expect(counters.leavesCleared).toBe(counters.leavesWritten);
  });
});
