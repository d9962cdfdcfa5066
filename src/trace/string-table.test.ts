/** The string table: each distinct string once, and never without bound. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { NOT_KEPT, StringTable } from "./string-table.ts";

test("gives equal strings one index and different strings different ones, as a map does", () => {
  fc.assert(
    fc.property(
      fc.array(fc.oneof(fc.string({ unit: "grapheme", maxLength: 6 }), fc.stringMatching(/^[ab]{0,3}$/))),
      (texts) => {
        const table = new StringTable();
        const model = new Map<string, number>();
        for (const text of texts) {
          if (!model.has(text)) model.set(text, model.size);
          expect(table.intern(text)).toBe(model.get(text));
        }
        expect(table.list).toEqual([...model.keys()]);
      },
    ),
  );
});

test("keeps its indexes when it grows", () => {
  const table = new StringTable();
  const indexes = Array.from({ length: 20_000 }, (_, i) => table.intern(`string ${i}`));
  indexes.forEach((index, i) => {
    expect(table.list[index]).toBe(`string ${i}`);
    expect(table.intern(`string ${i}`)).toBe(index);
  });
});

test("recognises a known string where bytes begin with it", () => {
  const table = new StringTable();
  const index = table.intern("0000:00:04.0");
  const bytes = new TextEncoder().encode("x 0000:00:04.0 0000:00:05.0");
  expect(table.matchAt(index, bytes, 2)).toBe(12);
  expect(table.matchAt(index, bytes, 15)).toBe(0);
});

test("stops keeping strings after 64 MiB, and says so in their place", () => {
  const table = new StringTable();
  const large = new Uint8Array(8 * 1024 * 1024).fill(97);
  const indexes = Array.from({ length: 20 }, (_, i) => {
    large[0] = 65 + i;
    return table.internBytes(large, 0, large.length);
  });
  const kept = table.list.reduce((sum, text) => sum + text.length, 0);
  expect(kept).toBeLessThanOrEqual(65 * 1024 * 1024);
  expect(table.list[indexes.at(-1)!]).toBe(NOT_KEPT);
  large[0] = 65;
  expect(table.internBytes(large, 0, large.length)).toBe(indexes[0]);
});
