import { createHash, createHmac } from "node:crypto";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { keyed, sameBytes, sha256, textBytes } from "./digest.ts";

const hexOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");

describe("digests of simulated devices", () => {
  test("SHA-256 has the standard's example", () => {
    expect(hexOf(sha256(textBytes("abc")))).toBe("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  });

  test("SHA-256 and HMAC are Node's, for every length", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), fc.uint8Array({ maxLength: 100 }), (bytes, key) => {
        expect(hexOf(sha256(bytes))).toBe(createHash("sha256").update(bytes).digest("hex"));
        expect(hexOf(keyed(key, bytes.subarray(0, 3), bytes.subarray(3)))).toBe(
          createHmac("sha256", key).update(bytes).digest("hex"),
        );
      }),
    );
  });

  test("equal bytes are equal, and nothing else is", () => {
    expect(sameBytes(Uint8Array.of(1, 2), Uint8Array.of(1, 2))).toBe(true);
    expect(sameBytes(Uint8Array.of(1, 2), Uint8Array.of(1, 3))).toBe(false);
    expect(sameBytes(Uint8Array.of(1, 2), Uint8Array.of(1))).toBe(false);
  });
});
