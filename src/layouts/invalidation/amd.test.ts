/** AMD commands: building and reading are inverse, and what a range becomes. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { IovaPage, PhysAddr } from "../../base/index.ts";
import {
  type AmdCommand,
  amdOrder,
  blockStart,
  decodeAmd,
  encodeAmd,
  NO_PASID,
  writeInvalidatePageRange,
} from "./index.ts";

const bits = (n: number): fc.Arbitrary<number> => fc.maxSafeNat().map((value) => value % 2 ** n);
const flag = fc.boolean();
const pasids = fc.oneof(fc.constant(NO_PASID), bits(20));
const blocks = fc
  .tuple(bits(52), fc.integer({ min: 0, max: 52 }))
  .map(([any, order]) => ({ page: blockStart(any as IovaPage, order), order }));
const commands: fc.Arbitrary<AmdCommand> = fc.oneof(
  fc.record({
    type: fc.constant("completion-wait" as const),
    store: flag,
    interrupt: flag,
    flushQueue: flag,
    storeAddress: bits(49).map((value) => (value * 8) as PhysAddr),
    dataLow: bits(32),
    dataHigh: bits(32),
  }),
  fc.record({ type: fc.constant("invalidate-device-entry" as const), deviceId: bits(16) }),
  fc
    .tuple(blocks, fc.record({ domainId: bits(16), pasid: pasids, tablesToo: flag }))
    .map(([block, rest]) => ({ type: "invalidate-pages" as const, ...rest, ...block })),
  fc
    .tuple(blocks, fc.record({ deviceId: bits(16), queueId: bits(16), queueDepth: bits(8), pasid: pasids }))
    .map(([block, rest]) => ({ type: "invalidate-iotlb-pages" as const, ...rest, ...block })),
  fc.constant({ type: "invalidate-all" as const }),
);
/** By opcode, the fields as bits [high, low] of 128. */
const FIELDS: Readonly<Record<number, readonly (readonly [number, number])[]>> = {
  1: [
    [51, 0],
    [63, 60],
    [127, 64],
  ],
  2: [
    [15, 0],
    [63, 60],
  ],
  3: [
    [19, 0],
    [47, 32],
    [63, 60],
    [66, 64],
    [127, 76],
  ],
  4: [
    [63, 0],
    [64, 64],
    [66, 66],
    [127, 76],
  ],
  8: [[63, 60]],
};
const encoded = (command: AmdCommand): Uint32Array => {
  const words = new Uint32Array(4).fill(0xa5a5a5a5);
  encodeAmd(command, words, 0);
  return words;
};

describe("an AMD command", () => {
  test("is read back as it was written, of every type and value", () => {
    fc.assert(
      fc.property(commands, (command) => {
        expect(decodeAmd(encoded(command), 0)).toEqual(command);
      }),
      { numRuns: 2_000 },
    );
  });

  test("sets no bit outside the fields of its type, and any such bit makes it invalid", () => {
    fc.assert(
      fc.property(commands, (command) => {
        const words = encoded(command);
        const fields = FIELDS[words[1]! >>> 28]!;
        for (let bit = 0; bit < 128; bit++) {
          if (fields.some(([high, low]) => bit >= low && bit <= high)) continue;
          const changed = words.map((word, i) => (i === bit >> 5 ? word ^ (1 << (bit & 31)) : word));
          expect([bit, changed[bit >> 5]! > words[bit >> 5]!, decodeAmd(changed, 0)]).toEqual([
            bit,
            true,
            { type: "invalid", reason: "reserved bits" },
          ]);
        }
      }),
      { numRuns: 200 },
    );
  });

  test.each([0, 9, 15])("of opcode %i is invalid", (opcode) =>
    expect(decodeAmd(Uint32Array.of(0, opcode << 28, 0, 0), 0)).toEqual({ type: "invalid", reason: "unknown opcode" }),
  );

  test.each([
    [40, 2 ** 40, 40],
    [41, 2 ** 40 + 1, 52],
  ])("names blocks up to order 40, above that everything (%i)", (_order, end, named) =>
    expect(amdOrder(0 as IovaPage, end as IovaPage)).toBe(named),
  );

  test("says whether freed tables must go with the range", () => {
    const words = new Uint32Array(8);
    writeInvalidatePageRange(words, 0, 5, NO_PASID, 0x747 as IovaPage, 0x749 as IovaPage, false);
    writeInvalidatePageRange(words, 4, 5, NO_PASID, 0x747 as IovaPage, 0x749 as IovaPage, true);
    expect([...words]).toEqual([0, 0x30000005, 0x747001, 0, 0, 0x30000005, 0x747003, 0]);
  });

  test("whose value does not fit is refused and writes nothing", () => {
    const words = Uint32Array.of(1, 2, 3, 4);
    const refusal = expect.objectContaining({ code: "ERR_DMA_INVALIDATION_FIELD", errno: "EINVAL" });
    const wait = { store: true, interrupt: false, flushQueue: false, dataLow: 0, dataHigh: 0 };
    const page = 0 as IovaPage;
    for (const command of [
      { type: "invalidate-device-entry", deviceId: 0x10000 },
      { type: "completion-wait", ...wait, storeAddress: 4 as PhysAddr },
      { type: "invalidate-pages", domainId: 0, pasid: -2, page, order: 0, tablesToo: false },
    ] satisfies AmdCommand[])
      expect(() => encodeAmd(command, words, 0)).toThrow(refusal);
    expect([...words]).toEqual([1, 2, 3, 4]);
  });
});
