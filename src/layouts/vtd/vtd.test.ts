/** VT-d roots: building and reading are inverse, and positions are those of entries from a real machine. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { PhysPage } from "../../base/index.ts";
import {
  ABSENT_PASID_ENTRY,
  CONTEXT_ENTRY,
  decodeEntry,
  decodeRootTableAddress,
  encodeEntry,
  encodeRootTableAddress,
  PASID_DIRECTORY_ENTRY,
  PASID_ENTRY,
  pasidDirectoryEntries,
  ROOT_ENTRY,
  ROOT_TABLE_ADDRESS,
  reservedBits,
  SCALABLE_CONTEXT_ENTRY,
  SCALABLE_ROOT_ENTRY,
  type Structure,
  TABLE_MODE,
  translationOfContext,
  translationOfPasid,
  unitLeafSizes,
} from "./index.ts";

/** Reserved plus ignored bits per structure, written by hand from the specification's tables. */
const OUTSIDE: readonly (readonly [Structure<object>, readonly (readonly [number, number])[]])[] = [
  [
    ROOT_ENTRY as unknown as Structure<object>,
    [
      [11, 1],
      [127, 64],
    ],
  ],
  [
    SCALABLE_ROOT_ENTRY as unknown as Structure<object>,
    [
      [11, 1],
      [75, 65],
    ],
  ],
  [
    CONTEXT_ENTRY as unknown as Structure<object>,
    [
      [11, 4],
      [71, 67],
      [127, 88],
    ],
  ],
  [
    SCALABLE_CONTEXT_ENTRY as unknown as Structure<object>,
    [
      [8, 5],
      [127, 85],
      [255, 128],
    ],
  ],
  [PASID_DIRECTORY_ENTRY as unknown as Structure<object>, [[11, 2]]],
  [
    PASID_ENTRY as unknown as Structure<object>,
    [
      [11, 10],
      [86, 80],
      [139, 136],
      [511, 192],
    ],
  ],
  [ROOT_TABLE_ADDRESS as unknown as Structure<object>, [[9, 0]]],
];

const inRanges = (ranges: readonly (readonly [number, number])[], position: number): boolean =>
  ranges.some(([high, low]) => position <= high && position >= low);

for (const [structure, outside] of OUTSIDE)
  describe(`a ${structure.name}`, () => {
    const words = fc.array(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), {
      minLength: structure.words,
      maxLength: structure.words,
    });
    const keep = (given: readonly bigint[]): bigint[] =>
      given.map((word, w) => {
        let kept = 0n;
        for (let bit = 0; bit < 64; bit++) if (!inRanges(outside, w * 64 + bit)) kept |= word & (1n << BigInt(bit));
        return kept;
      });

    test("read and built again is itself, less reserved and ignored bits", () =>
      fc.assert(
        fc.property(words, (given) => {
          expect(encodeEntry(structure, decodeEntry(structure, given))).toEqual(keep(given));
        }),
      ));

    test("names every bit that the specification reserves", () => {
      const all = new Array<bigint>(structure.words).fill(2n ** 64n - 1n);
      const ignored = structure.ignored ?? [];
      reservedBits(structure, all).forEach((word, w) => {
        for (let bit = 0; bit < 64; bit++) {
          const position = w * 64 + bit;
          const reserved = inRanges(outside, position) && !inRanges(ignored, position);
          expect([position, (word >> BigInt(bit)) & 1n]).toEqual([position, reserved ? 1n : 0n]);
        }
      });
    });

    test("refuses a wrong number of words", () => {
      expect(() => decodeEntry(structure, [])).toThrow(/64-bit words, 0 were given/);
    });
  });

describe("entries of a real machine", () => {
  test("a root entry and a context entry of legacy mode", () => {
    expect(decodeEntry(ROOT_ENTRY, [0xdea001n, 0n])).toEqual({ present: true, contextTable: 0xdea });
    const entry = decodeEntry(CONTEXT_ENTRY, [0x7bc62001n, 0x302n]);
    expect(entry).toMatchObject({ present: true, translationType: 0, addressWidth: 2, domainId: 3 });
    expect(translationOfContext(entry)).toEqual({
      kind: "second-stage",
      second: { table: 0x7bc62, levels: 4 },
    });
  });

  test("the way to a first stage in scalable mode", () => {
    expect(decodeEntry(SCALABLE_ROOT_ENTRY, [0xdee001n, 0xdf3001n])).toEqual({
      lowerPresent: true,
      lowerContextTable: 0xdee,
      upperPresent: true,
      upperContextTable: 0xdf3,
    });
    const context = decodeEntry(SCALABLE_CONTEXT_ENTRY, [0xdef401n, 0n, 0n, 0n]);
    expect(context).toMatchObject({ pasidDirectory: 0xdef, requestPasid: 0, pasidEnable: false });
    expect(pasidDirectoryEntries(context)).toBe(512);
    expect(decodeEntry(PASID_DIRECTORY_ENTRY, [0xe02001n])).toMatchObject({ present: true, pasidTable: 0xe02 });
    const entry = decodeEntry(PASID_ENTRY, [0x49n, 3n, 0xe01000n, 0n, 0n, 0n, 0n, 0n]);
    expect(entry.domainId).toBe(3);
    expect(translationOfPasid(entry)).toEqual({ kind: "first-stage", first: { table: 0xe01, levels: 4 } });
  });

  test("the root table register, in both modes", () => {
    expect(decodeRootTableAddress(0xdea400n)).toEqual({ mode: TABLE_MODE.scalable, rootTable: 0xdea });
    expect(decodeRootTableAddress(0xde0000n)).toEqual({ mode: TABLE_MODE.legacy, rootTable: 0xde0 });
    expect(encodeRootTableAddress({ mode: TABLE_MODE.scalable, rootTable: 0xdea as PhysPage })).toBe(0xdea400n);
  });

  test("the leaf sizes of a unit", () => {
    expect(unitLeafSizes(0xd2008c222f0606n, "second")).toEqual([0, 9, 18]);
    expect(unitLeafSizes(0x1d2008c222f0606n, "first")).toEqual([0, 9, 18]);
    expect(unitLeafSizes(0n, "first")).toEqual([0, 9]);
    expect(unitLeafSizes(0n, "second")).toEqual([0]);
  });
});

describe("what an entry makes of requests", () => {
  const pasid = (fields: object) => translationOfPasid({ ...ABSENT_PASID_ENTRY, present: true, ...fields });

  test("nested translation names both stages", () => {
    expect(
      pasid({ translationType: 3, addressWidth: 3, secondStageTable: 7, firstStagePagingMode: 1, firstStageTable: 9 }),
    ).toEqual({ kind: "nested", first: { table: 9, levels: 5 }, second: { table: 7, levels: 5 } });
  });

  test("second stage and pass-through", () => {
    expect(pasid({ translationType: 2, addressWidth: 1, secondStageTable: 7 })).toEqual({
      kind: "second-stage",
      second: { table: 7, levels: 3 },
    });
    expect(pasid({ translationType: 4 })).toEqual({ kind: "pass-through" });
    expect(translationOfContext({ ...decodeEntry(CONTEXT_ENTRY, [1n, 0n]), translationType: 2 })).toEqual({
      kind: "pass-through",
    });
  });

  test("reserved values are answers, not guesses", () => {
    for (const fields of [
      { translationType: 0 },
      { translationType: 5 },
      { translationType: 1, firstStagePagingMode: 2 },
      { translationType: 2, addressWidth: 0 },
      { translationType: 3, addressWidth: 4 },
    ])
      expect(pasid(fields).kind).toBe("reserved");
    expect(translationOfContext(decodeEntry(CONTEXT_ENTRY, [0xdn, 2n])).kind).toBe("reserved");
    expect(translationOfContext(decodeEntry(CONTEXT_ENTRY, [1n, 4n])).kind).toBe("reserved");
  });

  test("a value that does not fit its field is refused", () => {
    expect(() => encodeEntry(PASID_ENTRY, { ...ABSENT_PASID_ENTRY, domainId: 65536 })).toThrow(/has 16 bits/);
    expect(() => encodeEntry(PASID_ENTRY, { ...ABSENT_PASID_ENTRY, addressWidth: 1.5 })).toThrow(/has 3 bits/);
  });
});
