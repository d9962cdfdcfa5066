/** How much heap a call costs: what "allocates nothing" is held against. */

/** Bytes per call that count as none: far below the smallest object. */
export const NOTHING = 2;

/**
 * Bytes of heap a call costs once it is hot: the median over many short stretches, so that a collection in one is no
 * matter; the best of several tries, as the compiler finishes when it likes. What makes garbage makes it in every try.
 * `enough`: tries end when one is below it.
 */
export function bytesPerCall(calls: number, call: (i: number) => void, enough: number = NOTHING): number {
  const stretch = (): number => {
    const before = process.memoryUsage().heapUsed;
    for (let i = 0; i < calls; i++) call(i);
    return (process.memoryUsage().heapUsed - before) / calls;
  };
  let best = Number.POSITIVE_INFINITY;
  for (let attempt = 0; attempt < 20 && best >= enough; attempt++) {
    for (let i = 0; i < 60; i++) stretch();
    best = Math.min(best, Array.from({ length: 61 }, stretch).sort((x, y) => x - y)[30]!);
    // The compiler has a thread of its own: on a machine with much to do it is given a moment.
    if (best >= enough) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10 * attempt);
  }
  return best;
}
