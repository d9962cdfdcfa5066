/** Arm SMMUv3 commands: building and reading are inverse, and a series covers its range. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { IovaPage } from "../../base/index.ts";
import {
  decodeSmmu,
  encodeSmmu,
  isSeriesTooLong,
  NO_PASID,
  SMMU_OPCODE,
  type SmmuCommand,
  type SmmuRange,
  tlbPagesCovered,
  wholeContextOpcode,
  writeTlbRange,
} from "./index.ts";

const bits = (n: number): fc.Arbitrary<number> => fc.maxSafeNat().map((value) => value % 2 ** n);
const flag = fc.boolean();
const {
  pageNonSecureEl1,
  pageEl2,
  pageStage2,
  allNonSecureEl1,
  asidNonSecureEl1,
  asidEl2,
  allEl2,
  allOfVmid,
  allNonSecure,
} = SMMU_OPCODE;
const opcodes = fc.constantFrom(pageNonSecureEl1, pageEl2, pageStage2);
const commands: fc.Arbitrary<SmmuCommand> = fc.oneof(
  fc
    .record({
      type: fc.constant("tlb-pages" as const),
      opcode: opcodes,
      asid: bits(16),
      vmid: bits(16),
      page: bits(52).map((value) => value as IovaPage),
      leafOnly: flag,
      granule: bits(2),
      levelHint: bits(2),
      number: bits(5),
      scale: bits(5),
    })
    .map((c) => ({ ...c, asid: c.opcode === pageStage2 ? 0 : c.asid, vmid: c.opcode === pageEl2 ? 0 : c.vmid })),
  fc
    .tuple(
      fc.constantFrom(
        ...([
          [allNonSecureEl1, 0, 1],
          [asidNonSecureEl1, 1, 1],
          [allEl2, 0, 0],
          [asidEl2, 1, 0],
          [allOfVmid, 0, 1],
          [allNonSecure, 0, 0],
        ] as const),
      ),
      bits(16),
      bits(16),
    )
    .map(([[opcode, a, v], asid, vmid]) => ({
      type: "tlb-context" as const,
      opcode,
      asid: asid * a,
      vmid: vmid * v,
    })),
  fc.record({
    type: fc.constant("device-tlb" as const),
    streamId: bits(32),
    substreamId: fc.oneof(fc.constant(NO_PASID), bits(20)),
    page: bits(52).map((value) => value as IovaPage),
    order: bits(6),
  }),
  fc.record({ type: fc.constant("sync" as const), signal: bits(2) }),
);
/** By opcode, the fields as bits [high, low] of 128. */
const RANGE = [
  [7, 0],
  [16, 12],
  [24, 20],
] as const;
const ADDRESS = [
  [64, 64],
  [75, 72],
  [127, 76],
] as const;
const FIELDS: Readonly<Record<number, readonly (readonly [number, number])[]>> = {
  [pageNonSecureEl1]: [...RANGE, [63, 32], ...ADDRESS],
  [pageEl2]: [...RANGE, [63, 48], ...ADDRESS],
  [pageStage2]: [...RANGE, [47, 32], ...ADDRESS],
  [allNonSecureEl1]: [
    [7, 0],
    [47, 32],
  ],
  [asidNonSecureEl1]: [
    [7, 0],
    [63, 32],
  ],
  [allEl2]: [[7, 0]],
  [asidEl2]: [
    [7, 0],
    [63, 48],
  ],
  [allOfVmid]: [
    [7, 0],
    [47, 32],
  ],
  [allNonSecure]: [[7, 0]],
  [SMMU_OPCODE.deviceTlb]: [
    [7, 0],
    [11, 11],
    [63, 12],
    [69, 64],
    [127, 76],
  ],
  [SMMU_OPCODE.sync]: [
    [7, 0],
    [13, 12],
  ],
};
const encoded = (command: SmmuCommand): Uint32Array => {
  const words = new Uint32Array(4).fill(0xa5a5a5a5);
  encodeSmmu(command, words, 0);
  return words;
};

const ranges: fc.Arbitrary<SmmuRange> = fc
  .record({
    opcode: opcodes,
    asid: bits(16),
    vmid: bits(16),
    granuleLg: fc.constantFrom(0, 2, 4),
    level: bits(2).map((value) => value % 3),
    from: bits(20),
    entries: fc.oneof(
      fc.integer({ min: 1, max: 5_000 }),
      fc.integer({ min: 1, max: 64 }).map((n) => n * 2 ** 36),
    ),
    leafOnly: flag,
    rangeFeature: flag,
  })
  .map(({ level, from, entries, ...rest }) => {
    const entryLg = rest.granuleLg + (rest.leafOnly ? level * (rest.granuleLg + 9) : 0);
    const fits = Math.min(entries, rest.rangeFeature ? 2 ** (45 - entryLg) : 700);
    const start = (from * 2 ** entryLg) as IovaPage;
    return { ...rest, entryLg, start, end: (start + fits * 2 ** entryLg) as IovaPage };
  });

/** The series of a range, as the SMMU reads it. */
function series(range: SmmuRange): Extract<SmmuCommand, { type: "tlb-pages" }>[] {
  const found = [];
  const words = new Uint32Array(4);
  for (let page = range.start; page < range.end; ) {
    page = writeTlbRange(words, 0, range, page);
    const command = decodeSmmu(words, 0);
    if (command.type !== "tlb-pages") throw new Error(`read back as ${command.type}`);
    found.push(command);
  }
  return found;
}

describe("an SMMU command", () => {
  test("is read back as it was written, of every type and value", () => {
    fc.assert(
      fc.property(commands, (command) => {
        expect(decodeSmmu(encoded(command), 0)).toEqual(command);
      }),
      { numRuns: 2_000 },
    );
  });

  test("sets no bit outside the fields of its opcode, and any such bit makes it invalid", () => {
    fc.assert(
      fc.property(commands, (command) => {
        const words = encoded(command);
        const fields = FIELDS[words[0]! & 0xff]!;
        for (let bit = 0; bit < 128; bit++) {
          if (fields.some(([high, low]) => bit >= low && bit <= high)) continue;
          const changed = words.map((word, i) => (i === bit >> 5 ? word ^ (1 << (bit & 31)) : word));
          expect([bit, changed[bit >> 5]! > words[bit >> 5]!, decodeSmmu(changed, 0)]).toEqual([
            bit,
            true,
            { type: "invalid", reason: "reserved bits" },
          ]);
        }
      }),
      { numRuns: 200 },
    );
  });

  test.each([0x00, 0x13, 0xff])("of opcode %i is invalid", (opcode) =>
    expect(decodeSmmu(Uint32Array.of(opcode, 0, 0, 0), 0)).toEqual({ type: "invalid", reason: "unknown opcode" }),
  );

  test("with a number that its opcode does not have is refused and writes nothing", () => {
    const words = Uint32Array.of(1, 2, 3, 4);
    expect(() => encodeSmmu({ type: "tlb-context", opcode: asidEl2, asid: 1, vmid: 1 }, words, 0)).toThrow(
      expect.objectContaining({ code: "ERR_DMA_INVALIDATION_FIELD", errno: "EINVAL" }),
    );
    expect([...words]).toEqual([1, 2, 3, 4]);
  });
});

describe("a series of SMMU commands", () => {
  test("covers its range without hole or overlap, and at most one granule more", () => {
    fc.assert(
      fc.property(ranges, (range) => {
        let at: number = range.start;
        for (const command of series(range)) {
          expect(command.page).toBe(at);
          expect(command.leafOnly).toBe(range.leafOnly);
          const covered = tlbPagesCovered(command);
          expect(covered === 0).toBe(!range.rangeFeature);
          at += covered || 2 ** range.entryLg;
        }
        const excess = at - range.end;
        expect(excess === 0 || (!range.leafOnly && range.rangeFeature && excess === 2 ** range.granuleLg)).toBe(true);
      }),
    );
  });

  test("never has the reserved combination: one granule at no known level", () => {
    fc.assert(
      fc.property(ranges, (range) => {
        for (const { granule, number, scale, levelHint } of series(range))
          expect(granule !== 0 && number === 0 && scale === 0 && levelHint === 0).toBe(false);
      }),
    );
  });

  test("is given up from as many entries on as a table has, unless the SMMU understands ranges", () => {
    const range = { opcode: pageNonSecureEl1, asid: 1, vmid: 1, start: 0 as IovaPage, leafOnly: true } as const;
    const granule = { granuleLg: 0, entryLg: 0, rangeFeature: false };
    expect(isSeriesTooLong({ ...range, ...granule, end: 511 as IovaPage })).toBe(false);
    expect(isSeriesTooLong({ ...range, ...granule, end: 512 as IovaPage })).toBe(true);
    expect(isSeriesTooLong({ ...range, ...granule, rangeFeature: true, end: 512 as IovaPage })).toBe(false);
    expect([pageNonSecureEl1, pageEl2, pageStage2].map(wholeContextOpcode)).toEqual([
      asidNonSecureEl1,
      asidEl2,
      allOfVmid,
    ]);
  });

  test("covers the granule that its range ends in", () => {
    const range = {
      opcode: pageStage2,
      asid: 0,
      vmid: 1,
      granuleLg: 2,
      entryLg: 2,
      leafOnly: true,
      rangeFeature: true,
    };
    const found = series({ ...range, start: 8 as IovaPage, end: 17 as IovaPage } as SmmuRange);
    expect(found.map((command) => [command.page, tlbPagesCovered(command)])).toEqual([[8, 12]]);
  });

  test("asks only for pages of its range", () => {
    const range = { opcode: pageEl2, asid: 1, vmid: 0, granuleLg: 0, entryLg: 0, leafOnly: true, rangeFeature: true };
    const words = Uint32Array.of(1, 2, 3, 4);
    const asked = { ...range, start: 8 as IovaPage, end: 16 as IovaPage } as SmmuRange;
    for (const page of [7, 16] as IovaPage[])
      expect(() => writeTlbRange(words, 0, asked, page)).toThrow(
        expect.objectContaining({ code: "ERR_DMA_INVALIDATION_RANGE", errno: "EINVAL" }),
      );
    expect([...words]).toEqual([1, 2, 3, 4]);
  });
});
