/** Which mapping holds a page: told by the mappings themselves, and quick however many share a page. */
import { describe, expect, test } from "vitest";
import { Random } from "../../base/index.ts";
import { PhysicalPages } from "./physical-pages.ts";
import { ONE_SHOT, TRANSLATED } from "./table.ts";

/** Rows of mappings, of `pages` pages at a page; a row's number is used again when it is free. */
class Rows {
  readonly kind: Uint8Array;
  readonly reached: Uint8Array;
  readonly phys: Float64Array;
  readonly length: Float64Array;
  readonly live = new Set<number>();

  constructor(most: number) {
    this.kind = new Uint8Array(most).fill(ONE_SHOT);
    this.reached = new Uint8Array(most).fill(TRANSLATED);
    this.phys = new Float64Array(most);
    this.length = new Float64Array(most);
  }

  get used(): number {
    return this.kind.length;
  }

  isLive(row: number): boolean {
    return this.live.has(row);
  }

  open(row: number, page: number, pages = 1): void {
    this.live.add(row);
    this.phys[row] = page * 4096;
    this.length[row] = pages * 4096;
  }
}

const open = (rows: Rows, pages: PhysicalPages, row: number, page: number, count = 1): void => {
  rows.open(row, page, count);
  pages.add(row);
};
const close = (rows: Rows, pages: PhysicalPages, row: number): void => {
  pages.remove(row);
  rows.live.delete(row);
};

describe("the mappings of a page", () => {
  test("are those that are live, the oldest first, at most 64, whatever came and went", () => {
    const random = Random.fromSeed(7);
    const rows = new Rows(400);
    const pages = new PhysicalPages(rows);
    pages.start();
    const order: { row: number; first: number; end: number }[] = [];
    for (let step = 0; step < 20_000; step++) {
      const row = random.below(400);
      if (rows.isLive(row)) {
        close(rows, pages, row);
        order.splice(
          order.findIndex((one) => one.row === row),
          1,
        );
      } else if (random.below(400) > rows.live.size / 2) {
        const first = random.below(3);
        const count = 1 + random.below(3);
        open(rows, pages, row, first, count);
        order.push({ row, first, end: first + count });
      }
      if (step % 10 > 0) continue;
      for (let page = 0; page < 6; page++) {
        const holders = order.filter((one) => one.first <= page && page < one.end).map((one) => one.row);
        expect(pages.at(page)).toEqual(holders.slice(0, 64));
      }
    }
  });

  test.each(["first in, first out", "first in, last out"])("cost the same for each that comes and goes: %s", (how) => {
    const many = 60_000;
    const rows = new Rows(many);
    const pages = new PhysicalPages(rows);
    pages.start();
    const before = process.cpuUsage();
    for (let row = 0; row < many; row++) {
      pages.at(5);
      open(rows, pages, row, 5);
    }
    for (let i = 0; i < many; i++) {
      pages.at(5);
      close(rows, pages, how === "first in, first out" ? i : many - 1 - i);
    }
    const { user, system } = process.cpuUsage(before);
    expect((user + system) / 1e6).toBeLessThan(20);
    expect(pages.at(5)).toEqual([]);
  });

  test("end where addresses end", () => {
    expect([...PhysicalPages.run(2 ** 52 - 1, 1024)]).toEqual([2 ** 52 - 1]);
    expect([...PhysicalPages.run(2 ** 53, 1024)]).toEqual([]);
    expect([...PhysicalPages.run(Number.NaN, 1024)]).toEqual([]);
    expect([...PhysicalPages.run(7, 2)]).toEqual([7, 8]);
  });
});
