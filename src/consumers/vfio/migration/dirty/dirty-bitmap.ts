/**
 * Which pages are dirty: one bit each.
 *
 * Promises: setting and counting go by words; runs are found in ascending order. Not for: sharing with a kernel (user-bitmap.ts).
 */
export class DirtyBitmap {
  /** Pages that it has bits for. */
  readonly pageCount: number;
  readonly #words: Uint32Array;

  /** All are clean. */
  constructor(pageCount: number) {
    this.pageCount = pageCount;
    this.#words = new Uint32Array(Math.ceil(pageCount / 32));
  }

  /** Is `page` dirty? `page` is counted from the start of the range, in pages of the bitmap. */
  has(page: number): boolean {
    return ((this.#words[page >>> 5]! >>> (page & 31)) & 1) === 1;
  }

  /** Sets `count` bits from `first` on; what is past the end is left out. */
  set(first: number, count: number): void {
    const end = Math.min(first + count, this.pageCount);
    let page = first;
    while (page < end) {
      const bit = page & 31;
      const bits = Math.min(32 - bit, end - page);
      this.#words[page >>> 5]! |= bits === 32 ? -1 : ((1 << bits) - 1) << bit;
      page += bits;
    }
  }

  /** Every page becomes dirty. */
  setAll(): void {
    this.set(0, this.pageCount);
  }

  /** Every page becomes clean. */
  clear(): void {
    this.#words.fill(0);
  }

  /** Takes over the bits of another of the same size. */
  add(other: DirtyBitmap): void {
    other.#words.forEach((word, i) => {
      this.#words[i]! |= word;
    });
  }

  /** Bits that are set. */
  get count(): number {
    let count = 0;
    for (let word of this.#words) for (; word !== 0; word &= word - 1) count++;
    return count;
  }

  /** The next run of bits from `from` on, at most `most` long, which are cleared; undefined: there is none. */
  takeRun(
    from: number,
    most: number,
  ):
    | {
        /** Its first page. */
        readonly first: number;
        /** How many. */
        readonly count: number;
      }
    | undefined {
    let first = from;
    while (first < this.pageCount && !this.has(first))
      first = this.#words[first >>> 5]! >>> (first & 31) === 0 ? ((first >>> 5) + 1) << 5 : first + 1;
    if (first >= this.pageCount) return undefined;
    let end = first;
    while (end < this.pageCount && end - first < most && this.has(end)) {
      this.#words[end >>> 5]! &= ~(1 << (end & 31));
      end++;
    }
    return { first, count: end - first };
  }
}
