/** Sizes of blocks: the reference vectors, and that every byte of a region is found through its list. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { bestPageSize, eachBlock, pageListEntries } from "./index.ts";

const KIB = 1024;
const MIB = 1024 * KIB;
const SIZES = 4 * KIB + 64 * KIB + 2 * MIB;
const BASE = 0x1_0040_0000;
const VIRT = 0x4000_0000;
type Runs = readonly (readonly [number, number])[];

const VECTORS: readonly [
  name: string,
  runs: Runs,
  virt: number,
  length: number,
  offset: number,
  page: number,
  entries: number,
][] = [
  ["one run of 4 MiB", [[BASE, 4 * MIB]], VIRT, 4 * MIB, 0, 2 * MIB, 2],
  ["the address off by 64 KiB", [[BASE, 4 * MIB]], VIRT + 0x1_0000, 4 * MIB, 0, 64 * KIB, 64],
  ["the address off by 2 MiB", [[BASE, 4 * MIB]], VIRT + 0x20_0000, 4 * MIB, 0, 2 * MIB, 2],
  [
    "a gap after 1 MiB and 4 KiB",
    [
      [BASE, MIB + 4 * KIB],
      [BASE + MIB + 8 * KIB, 3 * MIB - 4 * KIB],
    ],
    VIRT,
    4 * MIB,
    0,
    4 * KIB,
    1024,
  ],
  [
    "a gap that keeps to 64 KiB",
    [
      [BASE, MIB],
      [0x1_0051_0000, 3 * MIB],
    ],
    VIRT,
    4 * MIB,
    0,
    64 * KIB,
    64,
  ],
  [
    "two runs side by side",
    [
      [BASE, MIB],
      [BASE + MIB, 3 * MIB],
    ],
    VIRT,
    4 * MIB,
    0,
    2 * MIB,
    2,
  ],
  ["beginning inside a page", [[BASE, 12 * KIB]], VIRT + 0x123, 8000, 0x123, 64 * KIB, 1],
  ["a hundred bytes", [[BASE, 4 * KIB]], VIRT, 100, 0, 4 * KIB, 1],
  ["a block may be larger than the region", [[BASE, 12 * KIB]], VIRT, 12 * KIB, 0, 64 * KIB, 1],
  ["a page of the region is not excluded by its last byte", [[BASE, 4 * KIB]], VIRT, 4 * KIB, 0, 4 * KIB, 1],
];

const runsOf = (runs: Runs): { address: number; length: number }[] =>
  runs.map(([address, length]) => ({ address, length }));

describe("the best page size", () => {
  test.each(VECTORS)("%s", (_name, runs, virt, length, firstOffset, page, entries) => {
    expect(bestPageSize({ runs: runsOf(runs), virt, length, firstOffset, sizes: SIZES })).toBe(page);
    expect(pageListEntries(virt, length, page)).toBe(entries);
  });

  test("none where address and memory differ below the smallest page", () => {
    const runs = runsOf([[BASE, 4 * MIB]]);
    expect(bestPageSize({ runs, virt: VIRT + 0x800, length: 4 * MIB, firstOffset: 0, sizes: SIZES })).toBe(0);
  });

  test("none for a region past the end of all addresses", () => {
    const runs = runsOf([[BASE, 4 * MIB]]);
    expect(bestPageSize({ runs, virt: 2n ** 64n - 4096n, length: 8192, firstOffset: 0, sizes: SIZES })).toBe(0);
    expect(bestPageSize({ runs, virt: 2n ** 64n - 8192n, length: 8192, firstOffset: 0, sizes: 4096 })).toBe(4096);
  });

  test("every byte is found through the list, whatever the runs", () => {
    const run = fc.record({ gap: fc.integer({ min: 0, max: 40 }), pages: fc.integer({ min: 1, max: 40 }) });
    fc.assert(
      fc.property(
        fc.array(run, { minLength: 1, maxLength: 6 }),
        fc.integer({ min: 0, max: 4095 }),
        fc.integer({ min: 0, max: 64 }),
        (pieces, firstOffset, shift) => {
          let address = BASE;
          const runs = pieces.map(({ gap, pages }) => {
            address += gap * 4096;
            const one = { address, length: pages * 4096 };
            address += one.length;
            return one;
          });
          const bytes = runs.reduce((sum, { length }) => sum + length, 0);
          const length = bytes - firstOffset;
          const virt = VIRT + shift * 4096 + firstOffset;
          const blockBytes = bestPageSize({ runs, virt, length, firstOffset, sizes: SIZES });
          expect(blockBytes).toBeGreaterThan(0);
          const list: number[] = [];
          eachBlock({ runs, firstOffset, virt, length, blockBytes }, (index, at) => {
            list[index] = at;
          });
          expect(list).toHaveLength(pageListEntries(virt, length, blockBytes));
          for (const block of list) expect(block % blockBytes).toBe(0);
          let offset = -firstOffset;
          for (const { address: start, length: runBytes } of runs) {
            for (let at = 0; at < runBytes; at += 1777) {
              if (offset + at < 0 || offset + at >= length) continue;
              const where = virt + offset + at;
              const block = list[Math.floor(where / blockBytes) - Math.floor(virt / blockBytes)]!;
              expect(block + (where % blockBytes)).toBe(start + at);
            }
            offset += runBytes;
          }
        },
      ),
      { numRuns: 40, seed: 1 },
    );
  });
});
