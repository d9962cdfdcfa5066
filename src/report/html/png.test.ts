/** A picture's values, read back by Node's own zlib. */
import { crc32, deflateSync, inflateSync } from "node:zlib";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type Deflate, strengthPng } from "./png.ts";

/** The chunks of a PNG by name, each with its checksum held against Node's. */
function chunksOf(png: Uint8Array): Map<string, Uint8Array> {
  const view = new DataView(png.buffer, png.byteOffset, png.length);
  const chunks = new Map<string, Uint8Array>();
  for (let at = 8; at < png.length; ) {
    const length = view.getUint32(at);
    expect(view.getUint32(at + 8 + length)).toBe(crc32(png.subarray(at + 4, at + 8 + length)));
    chunks.set(Buffer.from(png.subarray(at + 4, at + 8)).toString("latin1"), png.subarray(at + 8, at + 8 + length));
    at += 12 + length;
  }
  return chunks;
}

describe.each([
  ["packed by the caller", (bytes: Uint8Array) => deflateSync(bytes, { level: 9 })],
  ["not packed", undefined],
] as [string, Deflate | undefined][])("a picture, %s", (_, deflate) => {
  test("holds the values, row by row", () => {
    const chunks = chunksOf(strengthPng(3, 2, Uint8Array.of(0, 1, 2, 3, 4, 255), [1, 2, 3], deflate));
    expect([...chunks.keys()]).toEqual(["IHDR", "PLTE", "tRNS", "IDAT", "IEND"]);
    expect([...inflateSync(chunks.get("IDAT")!)]).toEqual([0, 0, 1, 2, 0, 3, 4, 255]);
    expect([...chunks.get("PLTE")!.subarray(0, 6)]).toEqual([1, 2, 3, 1, 2, 3]);
  });

  test("is right at any size, those of whole and of several stored blocks too", () => {
    const widths = fc.oneof(fc.integer({ min: 1, max: 300 }), fc.constantFrom(65_533, 65_534, 65_535, 131_069));
    fc.assert(
      fc.property(widths, fc.nat(255), (width, value) => {
        const values = new Uint8Array(width).fill(value);
        const chunks = chunksOf(strengthPng(width, 1, values, [0, 0, 0], deflate));
        // Deep comparison of large arrays takes far longer.
        expect(Buffer.compare(inflateSync(chunks.get("IDAT")!), Buffer.concat([Buffer.of(0), values]))).toBe(0);
      }),
      { numRuns: 30 },
    );
  });
});
