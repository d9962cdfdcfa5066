/** Looking things up in columns that are in order. */

/** First index of `sorted[0, count)` whose value is `value` or more. */
export function firstFrom(sorted: ArrayLike<number>, value: number, count: number = sorted.length): number {
  let [low, high] = [0, count];
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (sorted[middle]! < value) low = middle + 1;
    else high = middle;
  }
  return low;
}
