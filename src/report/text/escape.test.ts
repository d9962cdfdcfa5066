/** Foreign text on its way to a page and to a terminal. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { escaped, visible, visibleInLine } from "./escape.ts";

describe("text for a terminal", () => {
  test("has nothing that a terminal obeys but line ends, and leaves other text as it is", () => {
    expect(visible("a\x1b[2J\x07\r\u009b31m\u202eb\n")).toBe("a\\u001b[2J\\u0007\\u000d\\u009b31m\\u202eb\n");
    expect(visible("Größe 12.3 µs, 設備\n")).toBe("Größe 12.3 µs, 設備\n");
    expect(visibleInLine("a\nb")).toBe("a\\u000ab");
  });

  test("means the same in JSON", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), (text) => {
        const sent = visible(JSON.stringify({ text }, null, 2));
        expect(JSON.parse(sent)).toEqual({ text });
        expect([...sent].every((one) => one === "\n" || !/\p{Cc}/u.test(one))).toBe(true);
      }),
    );
  });
});

test("text for a page has no character of its syntax", () => {
  expect(escaped(`<a href="x" id='y'>&`)).not.toMatch(/[<>"']/);
});
