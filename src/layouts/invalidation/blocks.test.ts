/** Blocks against a model on bigints that tries one order after the other. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { IovaPage } from "../../base/index.ts";
import {
  blockPages,
  blockStart,
  coveringOrder,
  EVERYTHING,
  encodeBlock,
  encodedOrder,
  encodedStart,
  pieceOrder,
} from "./blocks.ts";

const page = (value: number | bigint): IovaPage => Number(value) as IovaPage;
/** Pages of all magnitudes, not mostly huge ones. */
const pages = fc
  .tuple(fc.integer({ min: 0, max: 52 }), fc.bigInt({ min: 0n, max: 2n ** 52n - 1n }))
  .map(([bits, value]) => value >> BigInt(52 - bits));
const ranges = fc.tuple(pages, pages).map(([a, b]) => (a < b ? { start: a, last: b } : { start: b, last: a }));

describe("a block", () => {
  test("that covers a range is the smallest naturally aligned power of two that does", () => {
    fc.assert(
      fc.property(ranges, ({ start, last }) => {
        let n = 0n;
        while (start >> n !== last >> n) n++;
        const order = coveringOrder(page(start), page(last + 1n));
        expect(order).toBe(Number(n));
        expect(blockStart(page(start), order)).toBe(Number((start >> n) << n));
      }),
      { numRuns: 2_000 },
    );
  });

  test.each([
    [1, 0xfffff, 0x100000, 0xfffff, 0],
    [2, 0xffffe, 0x100000, 0xffffe, 1],
    [3, 1, 3, 0, 2],
    [4, 0x7ffff, 0x80001, 0, 20],
    [5, 0, 2 ** 52, 0, 52],
    [6, 0x200, 0x400, 0x200, 9],
  ])("vector %i: pages [%i, %i) give page %i and order %i", (_vector, start, end, first, order) => {
    expect(coveringOrder(page(start), page(end))).toBe(order);
    expect(blockStart(page(start), order)).toBe(first);
  });

  test("split off a range is the largest that starts there and fits, and blocks split it exactly", () => {
    fc.assert(
      fc.property(ranges, ({ start, last }) => {
        let at = start;
        while (at <= last) {
          let n = 0n;
          while (n < 52n && at % 2n ** (n + 1n) === 0n && at + 2n ** (n + 1n) - 1n <= last) n++;
          const order = pieceOrder(page(at), page(last + 1n));
          expect(order).toBe(Number(n));
          at += BigInt(blockPages(order));
        }
        expect(at).toBe(last + 1n);
      }),
    );
  });

  test("is read back from its encoding, for every order", () => {
    fc.assert(
      fc.property(pages, fc.integer({ min: 1, max: EVERYTHING }), (any, order) => {
        const start = blockStart(page(any), order);
        const encoded = encodeBlock(start, order);
        expect(encodedOrder(encoded)).toBe(order);
        expect(encodedStart(encoded)).toBe(start);
      }),
    );
  });

  test("of one page is encoded as that page", () => expect(encodeBlock(page(0x1237), 0)).toBe(0x1237));

  test("named by all ones is everything", () => {
    const ones = page(2 ** 52 - 1);
    expect([encodedStart(ones), encodedOrder(ones)]).toEqual([0, EVERYTHING]);
  });

  test("that does not start at a multiple of its size is refused", () => {
    expect(() => encodeBlock(page(3), 1)).toThrow(
      expect.objectContaining({ code: "ERR_DMA_INVALIDATION_ALIGNMENT", errno: "EINVAL" }),
    );
  });

  test.each([
    [5, 5],
    [6, 5],
    [-1, 5],
    [0, 2 ** 52 + 1],
    [Number.NaN, 1],
  ])("of pages [%d, %d) is refused", (start, end) => {
    const refusal = expect.objectContaining({ code: "ERR_DMA_INVALIDATION_RANGE", errno: "EINVAL" });
    expect(() => coveringOrder(page(start), page(end))).toThrow(refusal);
    expect(() => pieceOrder(page(start), page(end))).toThrow(refusal);
  });
});
