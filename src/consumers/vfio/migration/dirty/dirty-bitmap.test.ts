/** Bitmaps and memory layouts, against a set of numbers. */
import { describe, expect, test } from "vitest";
import { PAGE_SIZE, Random } from "../../../../base/index.ts";
import { DirtyBitmap } from "./dirty-bitmap.ts";
import { RamLayout } from "./ram-layout.ts";

test("setting, adding, counting and taking runs do what a set of numbers does", () => {
  const random = Random.fromSeed(2);
  for (let run = 0; run < 100; run++) {
    const pages = 1 + random.below(200);
    const [bitmap, other] = [new DirtyBitmap(pages), new DirtyBitmap(pages)];
    const model = new Set<number>();
    for (let i = 0; i < 10; i++) {
      const first = random.below(pages);
      const count = random.below(80);
      (i % 2 === 0 ? bitmap : other).set(first, count);
      for (let page = first; page < Math.min(first + count, pages); page++) model.add(page);
    }
    bitmap.add(other);
    expect(bitmap.count).toBe(model.size);
    for (let page = 0; page < pages; page++) expect(bitmap.has(page)).toBe(model.has(page));
    const most = 1 + random.below(20);
    const taken: number[] = [];
    for (let found = bitmap.takeRun(0, most); found; found = bitmap.takeRun(found.first, most)) {
      expect(found.count).toBeLessThanOrEqual(most);
      for (let i = 0; i < found.count; i++) taken.push(found.first + i);
    }
    expect(taken).toEqual([...model].sort((a, b) => a - b));
    expect(bitmap.count).toBe(0);
    bitmap.setAll();
    expect(bitmap.count).toBe(pages);
  }
});

describe("a guest's memory in blocks", () => {
  const ram = new RamLayout([
    { start: 0x10000, length: 4 * PAGE_SIZE },
    { start: 0x40000, length: 2 * PAGE_SIZE },
  ]);

  test("numbers its pages in a row", () => {
    expect(ram.pageCount).toBe(6);
    expect([0, 3, 4, 5].map((page) => ram.addressOf(page))).toEqual([0x10000, 0x13000, 0x40000, 0x41000]);
  });

  test("finds the pages that a range touches, and leaves out what is no memory", () => {
    const runs: number[][] = [];
    ram.eachRun(0x12fff, 0x30000, (first, count) => runs.push([first, count]));
    expect(runs).toEqual([
      [2, 2],
      [4, 2],
    ]);
    ram.eachRun(0x20000, 0x1000, () => expect.unreachable());
  });

  test.each([
    ["nothing", []],
    ["half a page", [{ start: 0, length: 2048 }]],
    ["a start inside a page", [{ start: 100, length: 4096 }]],
    [
      "blocks that overlap",
      [
        { start: 0, length: 8192 },
        { start: 4096, length: 4096 },
      ],
    ],
    [
      "blocks out of order",
      [
        { start: 8192, length: 4096 },
        { start: 0, length: 4096 },
      ],
    ],
  ])("is refused when it is %s", (_what, blocks) => expect(() => new RamLayout(blocks)).toThrow("whole pages"));
});
