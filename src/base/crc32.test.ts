/** CRC-32: the same as zlib's, in one piece or in many. */
import { crc32 as zlibs } from "node:zlib";
import { expect, test } from "vitest";
import { crc32 } from "./crc32.ts";
import { Random } from "./random.ts";

test("the check value of the standard", () =>
  expect(crc32(new TextEncoder().encode("123456789")).toString(16)).toBe("cbf43926"));

test("any bytes, cut anywhere, have the checksum that zlib gives them", () => {
  const random = Random.fromSeed(7);
  for (let run = 0; run < 300; run++) {
    const bytes = Uint8Array.from({ length: random.below(200) }, () => random.below(256));
    const cut = random.below(bytes.length + 1);
    expect(crc32(bytes)).toBe(zlibs(bytes));
    expect(crc32(bytes.subarray(cut), crc32(bytes.subarray(0, cut)))).toBe(zlibs(bytes));
  }
});
