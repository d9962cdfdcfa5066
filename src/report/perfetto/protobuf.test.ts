/** What is written as protocol buffers is read back by a reader made from the specification. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { ProtoWriter } from "./protobuf.ts";

test("protocol buffers hold any number and any text", () => {
  fc.assert(
    fc.property(
      fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
      fc.maxSafeNat(),
      fc.string({ unit: "binary" }),
      (big, small, text) => {
        const parts: Uint8Array[] = [];
        const out = new ProtoWriter((bytes) => void parts.push(bytes.slice()));
        out.message(1, () => {
          out.uint(2, big);
          out.uint(3, small);
          out.string(4, text);
        });
        out.finish();
        const bytes = Buffer.concat(parts);
        let at = 0;
        const varint = (): bigint => {
          let value = 0n;
          for (let shift = 0n; ; shift += 7n) {
            value |= BigInt(bytes[at]! & 0x7f) << shift;
            if (bytes[at++]! < 0x80) return value;
          }
        };
        expect([varint(), Number(varint())]).toEqual([10n, bytes.length - at]);
        expect([varint(), varint(), varint(), varint(), varint()]).toEqual([16n, big, 24n, BigInt(small), 34n]);
        const length = Number(varint());
        expect(bytes.subarray(at, at + length).toString("utf8")).toBe(Buffer.from(text).toString("utf8"));
      },
    ),
  );
});
