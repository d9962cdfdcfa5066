/**
 * Ordered ranges: the taken ranges of one address space, and the highest free gap that a request fits in.
 *
 * Idea: a range is a small number, its *id*, and its fields stand under that number in typed arrays (no object per range,
 * so no garbage). Ids form a list in order of address; a run of at most 16 neighbours is a *block*, and blocks stand in
 * order in a directory. Beside each range stands the *fit* of the gap below it: the size of the largest size-aligned
 * request that it takes (every smaller one fits too), rounded down to six significant bits; beside each block a bound on
 * the fits in it, so a search passes over whole blocks that cannot serve. A gap whose fit is enough is then looked at
 * exactly. A hash table leads from a first page to its id.
 * Promises: the same answer as looking at every gap from the start downward. Page numbers are exact up to 2^53 - 1;
 * those below 2^31 are calculated with small integers. An id stays until its range is removed.
 * Not for: deciding where a search starts, or who owns a range: that is `domain.ts`.
 * Specified by: behaviour of Linux 7.2 IOVA allocation (tree allocation), judged by test/golden/iova.
 */

/** Above every page number; the permanent range that closes the list stands here. */
const TOP: number = 2 ** 53;
/** Id of the range that closes the list above; it is never removed, so it also means "none". */
export const ANCHOR = 0;
/** Id of the range [-1, -1] that closes the list below. */
export const BOTTOM = 1;

/** A block has no more ranges than this. */
const BLOCK = 16;
/** Neighbouring blocks that hold no more than this together become one, when one of them has half of it. */
const MERGE_AT = 10;

/** `value` rounded down to a multiple of `alignment`, a power of two; `value` at least 0. */
const alignDownPow2 = (value: number, alignment: number): number =>
  value < 0x8000_0000 ? value & -alignment : Math.floor(value / alignment) * alignment;

/** log2, rounded down; valid for whole numbers 1..2^53. */
export const log2Floor = (value: number): number =>
  value < 0x8000_0000 ? 31 - Math.clz32(value) : 53 - Math.clz32(value / 0x40_0000);

/** log2, rounded up; valid for whole numbers 1..2^53. */
export const log2Ceil = (value: number): number => (value <= 1 ? 0 : log2Floor(value - 1) + 1);

/** `**` with a variable exponent costs a call. */
const POWERS: Float64Array = Float64Array.from({ length: 54 }, (_, k) => 2 ** k);

/** 2^k; valid for 0..53. */
export const pow2 = (k: number): number => (k < 31 ? 1 << k : POWERS[k]!);

/** A size as six significant bits: 32 log2(size), with the logarithm taken as linear between powers of two. Monotone. */
export const fitCode = (size: number): number => {
  const exponent = log2Floor(size);
  const bits = exponent < 31 ? size << (31 - exponent) : (size / pow2(exponent - 30)) << 1;
  return (exponent << 5) + ((bits >>> 26) & 31);
};

/** The code of the largest request that fits in [start, end) aligned to its size rounded up; -1 if the gap is empty. */
const gapFit = (start: number, end: number): number => {
  const length = end - start;
  if (length <= 0) return -1;
  if (end < 0x4000_0000) {
    let block = 1 << (31 - Math.clz32(length));
    if ((end & -block) - block < start) block >>= 1; // now the largest aligned block that fits
    // more than that block fits where the next larger alignment has a start, up to the end of the gap
    const more = end - ((start + 2 * block - 1) & (-2 * block));
    const fit = more > block ? more : block;
    const shift = Math.clz32(fit);
    return ((31 - shift) << 5) + (((fit << shift) >>> 26) & 31);
  }
  let block = pow2(log2Floor(length));
  if (alignDownPow2(end, block) - block < start) block /= 2;
  return fitCode(Math.max(block, end - Math.ceil(start / (2 * block)) * 2 * block));
};

export class OrderedRanges {
  /** By id: first and last page, neighbours, block, fit of the gap below, and a byte for the owner's use. */
  #lo = new Float64Array(64);
  #hi = new Float64Array(64);
  #prev = new Int32Array(64);
  /** Of ids not in use: the next of those. */
  #next = new Int32Array(64);
  #block = new Int32Array(64);
  #fit = new Int16Array(64);
  #note = new Uint8Array(64);
  #ids = 2;
  #freeId = -1;
  /** By block: its lowest range, how many it has, and its place in the directory. Of unused blocks: place = next one. */
  #lowest = new Int32Array(16);
  #count = new Uint8Array(16);
  #place = new Int32Array(16);
  #blocksMade = 1;
  #freeBlock = -1;
  /** The directory, highest addresses first, because allocation grows downward: the block, and a bound: no fit in it is larger. */
  #directory = new Int32Array(16);
  #largest = new Int16Array(16);
  #blocks = 1;
  /** Open addressing with linear probing, at most half full: ids by first page; 0 is empty. */
  #table = new Int32Array(128);
  #shift = 25; // 32 - log2 of the table's length
  #size = 0;
  /** Ranges that were widened: the first page that their owner knows. They are not in the table. */
  readonly #widened = new Map<number, number>();
  #anyWidened = false;
  /** Where the last successful search would put its range: the page, and the id of the range above it. */
  foundAt = 0;
  foundBelow = 0;

  constructor() {
    this.#lo[ANCHOR] = TOP;
    this.#hi[ANCHOR] = TOP;
    this.#prev[ANCHOR] = BOTTOM;
    this.#fit[ANCHOR] = gapFit(0, TOP);
    this.#lo[BOTTOM] = -1;
    this.#hi[BOTTOM] = -1;
    this.#next[BOTTOM] = ANCHOR;
    this.#lowest[0] = ANCHOR;
    this.#count[0] = 1;
    this.#largest[0] = this.#fit[ANCHOR]!;
  }

  lo(id: number): number {
    return this.#lo[id]!;
  }

  hi(id: number): number {
    return this.#hi[id]!;
  }

  /** The next range upward; not valid for the anchor. */
  next(id: number): number {
    return this.#next[id]!;
  }

  /** The first page that the owner knows: `lo`, unless the range was widened. */
  owned(id: number): number {
    return this.#anyWidened ? (this.#widened.get(id) ?? this.#lo[id]!) : this.#lo[id]!;
  }

  /** A byte that belongs to the owner; 0 for a new range. */
  note(id: number): number {
    return this.#note[id]!;
  }

  setNote(id: number, note: number): void {
    this.#note[id] = note;
  }

  /** Id of the range that its owner knows by this first page; 0 (the anchor) if there is none. O(1). */
  ownedAt(page: number): number {
    const id = this.#table[this.#home(page)]!;
    return this.#lo[id]! === page ? id : this.#probe(page);
  }

  /** Id of the highest range that starts at or below `page`; `BOTTOM` if there is none. O(log ranges). */
  atOrBelow(page: number): number {
    const above = this.atOrAbove(page);
    return this.#lo[above] === page ? above : this.#prev[above]!;
  }

  /** Id of the lowest range that starts at or above `page`; there always is one, the anchor. O(log ranges). */
  atOrAbove(page: number): number {
    const lo = this.#lo;
    let low = 0;
    let high = this.#blocks;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (lo[this.#lowest[this.#directory[middle]!]!]! <= page) high = middle;
      else low = middle + 1;
    }
    let id = this.#lowest[this.#directory[Math.min(low, this.#blocks - 1)]!]!;
    while (lo[id]! < page) id = this.#next[id]!;
    return id;
  }

  /** Id of the range that holds `page`; 0 (the anchor) if it is free. O(1) for its first page, else O(log ranges). */
  holding(page: number): number {
    const first = this.ownedAt(page);
    if (first !== ANCHOR || !(page >= 0 && page < TOP)) return first;
    const id = this.atOrBelow(page);
    return id !== BOTTOM && this.#hi[id]! >= page ? id : ANCHOR;
  }

  /** How many ranges lie below that one. O(blocks): only for the cost model. */
  rank(id: number): number {
    if (id === BOTTOM) return -1;
    const block = this.#block[id]!;
    let rank = 0;
    for (let other = id; other !== this.#lowest[block]; other = this.#prev[other]!) rank++;
    for (let place = this.#place[block]! + 1; place < this.#blocks; place++)
      rank += this.#count[this.#directory[place]!]!;
    return rank;
  }

  /**
   * Looks for the highest start that is a multiple of `alignment`, with `size` pages free, below `high`, not below
   * `low`, in the gaps under the range `start` and further down. True: `foundAt` and `foundBelow` are set.
   * `start` must be the lowest range that starts at or above `high`, or lie above it. Gaps of less than `fit` are passed.
   */
  search(start: number, high: number, low: number, size: number, alignment: number, fit: number): boolean {
    const lo = this.#lo;
    const hi = this.#hi;
    const prev = this.#prev;
    const fits = this.#fit;
    // the first gap may be cut by the limit, so its fit says nothing
    if (high < size) return false;
    let at = alignDownPow2(high - size, alignment);
    if (at < low) return false;
    if (at > hi[prev[start]!]!) {
      this.foundAt = at;
      this.foundBelow = start;
      return true;
    }
    const largest = this.#largest;
    const directory = this.#directory;
    const lowest = this.#lowest;
    const blocks = this.#blocks;
    const first = this.#block[start]!;
    let place = this.#place[first]!;
    let bottom = lowest[first]!;
    let whole = false; // the first block is looked at from its middle
    let id = start;
    for (;;) {
      while (id !== bottom) {
        id = prev[id]!;
        if (fits[id]! < fit) continue;
        const top = lo[id]!;
        if (top < size) return false;
        at = alignDownPow2(top - size, alignment);
        if (at < low) return false;
        if (at > hi[prev[id]!]!) {
          this.foundAt = at;
          this.foundBelow = id;
          return true;
        }
        whole = false;
      }
      if (whole) largest[place] = fit - 1; // so that the next search passes over it
      if (lo[bottom]! < low) return false;
      do {
        if (++place === blocks) return false;
      } while (largest[place]! < fit);
      id = lowest[directory[place - 1]!]!;
      bottom = lowest[directory[place]!]!;
      whole = true;
    }
  }

  /** Adds [lo, hi] just below the range `above`; the room must be free. Returns its id. */
  insertBelow(above: number, lo: number, hi: number): number {
    if (this.#size * 2 >= this.#table.length) this.#growTable();
    let id = this.#freeId;
    if (id >= 0) this.#freeId = this.#next[id]!;
    else {
      if (this.#ids === this.#lo.length) this.#growIds();
      id = this.#ids++;
    }
    const below = this.#prev[above]!;
    const block = this.#block[above]!;
    this.#lo[id] = lo;
    this.#hi[id] = hi;
    this.#prev[id] = below;
    this.#next[id] = above;
    this.#next[below] = id;
    this.#prev[above] = id;
    this.#block[id] = block;
    this.#fit[id] = gapFit(this.#hi[below]! + 1, lo);
    this.#fit[above] = gapFit(hi + 1, this.#lo[above]!);
    this.#note[id] = 0;
    if (this.#lowest[block] === above) this.#lowest[block] = id;
    const table = this.#table;
    const mask = table.length - 1;
    let i = this.#home(lo);
    while (table[i] !== 0) i = (i + 1) & mask;
    table[i] = id;
    this.#size++;
    const count = this.#count[block]! + 1;
    this.#count[block] = count;
    if (count > BLOCK) this.#split(block, id);
    return id;
  }

  /** Takes a range out. Not valid for the two that close the list. */
  remove(id: number): void {
    if (this.#anyWidened && this.#widened.delete(id)) this.#anyWidened = this.#widened.size > 0;
    else this.#forget(id);
    const above = this.#next[id]!;
    const below = this.#prev[id]!;
    this.#next[below] = above;
    this.#prev[above] = below;
    const fit = gapFit(this.#hi[below]! + 1, this.#lo[above]!);
    this.#fit[above] = fit;
    const place = this.#place[this.#block[above]!]!;
    if (fit > this.#largest[place]!) this.#largest[place] = fit;
    const block = this.#block[id]!;
    if (this.#lowest[block] === id) this.#lowest[block] = above; // of the next block if this one is now empty
    this.#next[id] = this.#freeId;
    this.#freeId = id;
    const count = this.#count[block]! - 1;
    this.#count[block] = count;
    if (count <= MERGE_AT / 2) this.#shrink(block, count);
  }

  /** Lets a range start at `lo`, lower than now, in what is free below it. Its owner still knows its old first page. */
  widenDown(id: number, lo: number): void {
    if (!this.#widened.has(id)) {
      this.#forget(id);
      this.#widened.set(id, this.#lo[id]!);
      this.#anyWidened = true;
    }
    this.#lo[id] = lo;
    this.#fit[id] = gapFit(this.#hi[this.#prev[id]!]! + 1, lo); // smaller than before: the bound holds
  }

  /** Every range in ascending order, those that close the list left out. */
  *entries(): Generator<readonly [lo: number, hi: number]> {
    for (let id = this.#next[BOTTOM]!; id !== ANCHOR; id = this.#next[id]!) yield [this.#lo[id]!, this.#hi[id]!];
  }

  #home(page: number): number {
    const bits = page < 0x8000_0000 ? page : page ^ (page / 0x1_0000_0000);
    return Math.imul(bits, 0x9e3779b1) >>> this.#shift;
  }

  /** {@link ownedAt} where the first look was not enough. */
  #probe(page: number): number {
    const table = this.#table;
    const mask = table.length - 1;
    for (let i = this.#home(page); table[i] !== 0; i = (i + 1) & mask)
      if (this.#lo[table[i]!]! === page) return table[i]!;
    for (const [id, owned] of this.#widened) if (owned === page) return id;
    return ANCHOR;
  }

  /** Takes a range out of the table: what follows it and would be found no more moves up. */
  #forget(id: number): void {
    const table = this.#table;
    const mask = table.length - 1;
    let hole = this.#home(this.#lo[id]!);
    while (table[hole] !== id) hole = (hole + 1) & mask;
    for (let i = (hole + 1) & mask; table[i] !== 0; i = (i + 1) & mask) {
      // an entry may move to the hole if its home is not between the hole and itself
      if (((i - this.#home(this.#lo[table[i]!]!)) & mask) >= ((i - hole) & mask)) {
        table[hole] = table[i]!;
        hole = i;
      }
    }
    table[hole] = 0;
    this.#size--;
  }

  /**
   * Moves the lower half of a block that became too full by `added` to a new one below it. Where ranges come one below
   * the other, only that one moves, so that blocks stay full.
   */
  #split(upper: number, added: number): void {
    let lower = this.#freeBlock;
    if (lower >= 0) this.#freeBlock = this.#place[lower]!;
    else {
      if (this.#blocksMade === this.#lowest.length) this.#growBlocks();
      lower = this.#blocksMade++;
    }
    const place = this.#place[upper]! + 1;
    const moved = place === this.#blocks && this.#lowest[upper] === added ? 1 : BLOCK / 2;
    for (let other = this.#blocks++; other > place; other--) {
      this.#directory[other] = this.#directory[other - 1]!;
      this.#largest[other] = this.#largest[other - 1]!;
      this.#place[this.#directory[other]!] = other;
    }
    this.#directory[place] = lower;
    this.#largest[place] = this.#largest[place - 1]!;
    this.#place[lower] = place;
    this.#lowest[lower] = this.#lowest[upper]!;
    this.#count[lower] = moved;
    this.#count[upper]! -= moved;
    let id = this.#lowest[lower]!;
    for (let i = 0; i < moved; i++) {
      this.#block[id] = lower;
      id = this.#next[id]!;
    }
    this.#lowest[upper] = id;
  }

  /** Joins a block that became small with a neighbour, so that blocks stay few. */
  #shrink(block: number, count: number): void {
    const place = this.#place[block]!;
    const above = this.#directory[place - 1]!;
    const below = this.#directory[place + 1]!;
    if (place > 0 && count + this.#count[above]! <= MERGE_AT) this.#join(block, above);
    else if (place + 1 < this.#blocks && count + this.#count[below]! <= MERGE_AT) this.#join(below, block);
    else if (count === 0) this.#drop(block);
  }

  /** Moves what `lower` has to `upper`, the block above it. */
  #join(lower: number, upper: number): void {
    let id = this.#lowest[lower]!;
    const count = this.#count[lower]!;
    if (count > 0) this.#lowest[upper] = id;
    for (let i = 0; i < count; i++) {
      this.#block[id] = upper;
      id = this.#next[id]!;
    }
    this.#count[upper]! += count;
    const place = this.#place[upper]!;
    this.#largest[place] = Math.max(this.#largest[place]!, this.#largest[place + 1]!);
    this.#drop(lower);
  }

  #drop(block: number): void {
    this.#blocks--;
    for (let place = this.#place[block]!; place < this.#blocks; place++) {
      this.#directory[place] = this.#directory[place + 1]!;
      this.#largest[place] = this.#largest[place + 1]!;
      this.#place[this.#directory[place]!] = place;
    }
    this.#place[block] = this.#freeBlock;
    this.#freeBlock = block;
  }

  #growTable(): void {
    const old = this.#table;
    const table = new Int32Array(old.length * 2);
    const mask = table.length - 1;
    this.#shift--;
    for (const id of old) {
      if (id === 0) continue;
      let i = this.#home(this.#lo[id]!);
      while (table[i] !== 0) i = (i + 1) & mask;
      table[i] = id;
    }
    this.#table = table;
  }

  #growIds(): void {
    this.#lo = larger(this.#lo);
    this.#hi = larger(this.#hi);
    this.#prev = larger(this.#prev);
    this.#next = larger(this.#next);
    this.#block = larger(this.#block);
    this.#fit = larger(this.#fit);
    this.#note = larger(this.#note);
  }

  #growBlocks(): void {
    this.#lowest = larger(this.#lowest);
    this.#count = larger(this.#count);
    this.#place = larger(this.#place);
    this.#directory = larger(this.#directory);
    this.#largest = larger(this.#largest);
  }
}

/** Half as much again: growing is rare, room that is never used is not. */
function larger<T extends Float64Array | Int32Array | Int16Array | Uint8Array>(old: T): T {
  const grown = new (old.constructor as new (length: number) => T)(old.length + (old.length >> 1));
  grown.set(old);
  return grown;
}
