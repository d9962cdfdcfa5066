/** Fewer ranges: the smallest gaps close first, and nothing that was asked for is left out. */
import { describe, expect, test } from "vitest";
import { Random } from "../../../base/index.ts";
import { mergeRanges } from "./range-merge.ts";

const range = (first: number, last: number): { first: bigint; last: bigint } => ({
  first: BigInt(first),
  last: BigInt(last),
});

describe("ranges for a device that has few", () => {
  test("stay as they are if there are few enough", () =>
    expect(mergeRanges([range(0, 9), range(20, 29)], 2)).toEqual([range(0, 9), range(20, 29)]));

  test("close the smallest gap first, of equal ones the lowest", () => {
    expect(mergeRanges([range(0, 9), range(15, 19), range(22, 29)], 2)).toEqual([range(0, 9), range(15, 29)]);
    expect(mergeRanges([range(0, 9), range(15, 19), range(25, 29)], 2)).toEqual([range(0, 19), range(25, 29)]);
  });

  test("become one from the first start to the last end", () =>
    expect(mergeRanges([range(5, 9), range(15, 19), range(25, 29)], 1)).toEqual([range(5, 29)]));

  test("cover all that they covered, with as many ranges as the device has", () => {
    const random = Random.fromSeed(5);
    for (let run = 0; run < 300; run++) {
      let at = 0;
      const ranges = Array.from({ length: 1 + random.below(12) }, () => {
        const first = at + random.below(50) + 1;
        at = first + random.below(20);
        return range(first, at);
      });
      const most = 1 + random.below(8);
      const merged = mergeRanges(ranges, most);
      expect(merged.length).toBe(Math.min(most, ranges.length));
      for (const { first, last } of ranges)
        expect(merged.filter((each) => each.first <= first && each.last >= last)).toHaveLength(1);
      // No gap that was left is smaller than one that was closed.
      const gapsOf = (of: typeof ranges): bigint[] => of.slice(1).map(({ first }, i) => first - of[i]!.last);
      const left = gapsOf(merged);
      const closed = gapsOf(ranges)
        .sort((a, b) => Number(a - b))
        .slice(0, ranges.length - merged.length);
      if (left.length > 0 && closed.length > 0)
        expect(closed.at(-1)! <= left.reduce((a, b) => (a < b ? a : b))).toBe(true);
    }
  });
});
