/**
 * Which leaf comes next: the largest that address, output and length allow, and how many of it.
 *
 * Idea: sizes are logarithms; one look-up table answers "largest size not above n".
 * Specified by: behaviour of Linux 7.2 (page-size choice and the legacy splitter).
 */

/** 2^n for n up to 63: `**` with a variable exponent costs a call. */
export const POW2: Float64Array = Float64Array.from({ length: 64 }, (_, n) => 2 ** n);

/** 2^-n likewise. */
const INVERSE: Float64Array = Float64Array.from({ length: 64 }, (_, n) => 2 ** -n);

/** `page` modulo 2^lg. Exact for pages below 2^53; `%` on doubles is a call of tens of nanoseconds. */
export const offsetIn = (page: number, lg: number): number => page - Math.floor(page * INVERSE[lg]!) * POW2[lg]!;

/** Trailing zeros of a page number below 2^53; 53 for 0. */
function trailingZeros(value: number): number {
  const low = value | 0;
  if (low !== 0) return 31 - Math.clz32(low & -low);
  const high = Math.floor(value / 2 ** 32) | 0;
  return high === 0 ? 53 : 63 - Math.clz32(high & -high);
}

/** The largest n with 2^n <= value, for 1 <= value < 2^53. */
function log2Floor(value: number): number {
  return value < 2 ** 32 ? 31 - Math.clz32(value) : 63 - Math.clz32(Math.floor(value / 2 ** 32));
}

export class PageSizes {
  readonly sizes: readonly number[];
  readonly #best = new Int8Array(64).fill(-1);
  readonly #next = new Int8Array(64).fill(-1);

  constructor(sizes: readonly number[]) {
    this.sizes = sizes;
    for (let n = 0; n < 64; n++)
      for (const lg of sizes) {
        if (lg <= n) this.#best[n] = lg;
        if (lg > n && this.#next[n] === -1) this.#next[n] = lg;
      }
  }

  /** log2 of the next larger size, or -1. */
  next(lg: number): number {
    return this.#next[lg]!;
  }

  /** log2 of the best size at these pages, or -1 when none fits. `pages` is at least 1. */
  best(iova: number, phys: number, pages: number): number {
    let limit = log2Floor(pages);
    const iovaZeros = trailingZeros(iova);
    if (iovaZeros < limit) limit = iovaZeros;
    const physZeros = trailingZeros(phys);
    if (physZeros < limit) limit = physZeros;
    return this.#best[limit]!;
  }

  /** How many leaves of 2^lg pages follow before a larger size may fit, or until fewer pages are left than one leaf. */
  count(lg: number, iova: number, phys: number, pages: number): number {
    const size = POW2[lg]!;
    const next = this.#next[lg]!;
    if (next >= 0) {
      const span = POW2[next]!;
      const offset = offsetIn(iova, next);
      if (offset === offsetIn(phys, next)) {
        const until = span - offset;
        if (until + span <= pages) return until / size;
      }
    }
    return Math.floor(pages / size);
  }
}
