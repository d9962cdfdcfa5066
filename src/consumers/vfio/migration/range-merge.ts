/**
 * Fewer ranges than there are: what a device with little room for ranges is given to log.
 *
 * Idea: the two neighbours with the smallest gap become one, and again, until there are few enough. What lay between them
 * is logged too, so nothing is lost; what it costs are reports of pages that nobody asked for.
 * Specified by: behaviour of Linux 7.2 VFIO (combined IOVA ranges); judged by test/golden/vfio-mig.
 */
import type { LoggedRange } from "../../../platform/index.ts";

/** 64 bits, as the kernel computes gaps: also where an empty range ends before it starts. */
const wrapped = (value: bigint): bigint => BigInt.asUintN(64, value);

/**
 * `ranges`, ascending by start, as at most `most` (1 or more). Of equal gaps the lowest closes first.
 *
 * Cost: ranges² steps; there are at most 256.
 */
export function mergeRanges(ranges: readonly LoggedRange[], most: number): LoggedRange[] {
  const merged = [...ranges];
  if (merged.length <= most) return merged;
  // To one: from the first start to the end of the last by start, which is not always the highest end.
  if (most === 1) return [{ first: merged[0]!.first, last: merged.at(-1)!.last }];
  while (merged.length > most) {
    const at = smallestGap(merged);
    merged.splice(at, 2, { first: merged[at]!.first, last: merged[at + 1]!.last });
  }
  return merged;
}

/** Number of the range whose distance to the next one is smallest. Valid for two ranges or more. */
function smallestGap(ranges: readonly LoggedRange[]): number {
  let found = 0;
  let smallest: bigint | undefined;
  for (let i = 0; i + 1 < ranges.length; i++) {
    const gap = wrapped(ranges[i + 1]!.first - ranges[i]!.last);
    if (smallest === undefined || gap < smallest) [found, smallest] = [i, gap];
  }
  return found;
}
