/** Which range a page fault makes: the vectors of the reference, and what makes it smaller. */
import { describe, expect, test } from "vitest";
import { DmaError, MiB } from "../../src/base/index.ts";
import { chooseChunk } from "../../src/consumers/gpu/index.ts";

const NOTIFIER = { start: 0, end: 512 * MiB };
const CHUNKS = [2 * MiB, 65_536, 4096];

function choose(area: [number, number], address: number, taken: readonly [number, number][] = [], checkPagesBytes = 0) {
  const { start, end } = chooseChunk({
    address,
    chunks: CHUNKS,
    within: [{ start: area[0], end: area[1] }, NOTIFIER],
    overlaps: (from, to) => taken.some(([low, high]) => low < to && high > from),
    checkPagesBytes,
    isPresent: () => false,
  });
  return [start, end];
}

describe("the chunk around a touched address", () => {
  test.each<[[number, number], number, [number, number]]>([
    [[0x10_0000, 0x50_0000], 0x10_0000, [0x10_0000, 0x11_0000]],
    [[0x10_0000, 0x50_0000], 0x1f_f000, [0x1f_0000, 0x20_0000]],
    [[0x10_0000, 0x50_0000], 0x20_0000, [0x20_0000, 0x40_0000]],
    [[0x10_0000, 0x50_0000], 0x3f_ffff, [0x20_0000, 0x40_0000]],
    [[0x10_0000, 0x50_0000], 0x4f_ffff, [0x4f_0000, 0x50_0000]],
    [[0x10_1000, 0x4f_f000], 0x10_1000, [0x10_1000, 0x10_2000]],
    [[0x10_1000, 0x4f_f000], 0x10_f000, [0x10_f000, 0x11_0000]],
    [[0x10_1000, 0x4f_f000], 0x11_0000, [0x11_0000, 0x12_0000]],
    [[0x10_1000, 0x4f_f000], 0x30_0000, [0x20_0000, 0x40_0000]],
    [[0x10_1000, 0x4f_f000], 0x4f_0000, [0x4f_0000, 0x4f_1000]],
  ])("in the area %j at %i is %j", (area, address, range) => expect(choose(area, address)).toEqual(range));

  test("is smaller where a range is already, down to a page in the block that holds it", () => {
    const taken: [number, number][] = [[0x21_0000, 0x21_1000]];
    expect(choose([0x20_0000, 0x40_0000], 0x30_0000, taken)).toEqual([0x30_0000, 0x31_0000]);
    expect(choose([0x20_0000, 0x40_0000], 0x21_f000, taken)).toEqual([0x21_f000, 0x22_0000]);
  });

  test("is a page where small chunks must be in memory and are not", () => {
    expect(choose([0x10_0000, 0x20_0000], 0x10_0000, [], 65_536)).toEqual([0x10_0000, 0x10_1000]);
    expect(choose([0x20_0000, 0x40_0000], 0x20_0000, [], 65_536)).toEqual([0x20_0000, 0x40_0000]);
  });

  test("never reaches out of its notifier, and there may be none", () => {
    expect(choose([512 * MiB - 4096, 513 * MiB], 512 * MiB - 1)).toEqual([512 * MiB - 4096, 512 * MiB]);
    expect(() => choose([512 * MiB, 513 * MiB], 512 * MiB)).toThrow(DmaError);
  });
});
