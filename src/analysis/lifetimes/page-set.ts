/**
 * Sets of pages in many spaces at once: which pages of each device's address space are taken.
 *
 * Idea: a bitmap of 512 pages (2 MiB) a block; blocks are found by (space, block number) in a hash and given back when
 * they are empty. A range costs one step per 32 pages.
 * Not for: who holds a page, or how often.
 */
import { ChainedIndex, hashOf } from "./chained-index.ts";
import { FIRST_ROWS, RowNumbers, widened } from "./columns.ts";

const WORDS = 16;
const PAGES = WORDS * 32;

export class PageSet {
  #words = new Uint32Array(FIRST_ROWS * WORDS);
  #space = new Float64Array(FIRST_ROWS);
  #block = new Float64Array(FIRST_ROWS);
  #taken = new Uint16Array(FIRST_ROWS);
  readonly #numbers = new RowNumbers();
  readonly #index = new ChainedIndex();

  /** Blocks in use. */
  get blocks(): number {
    return this.#numbers.live;
  }

  /** Whether any page of [page, page + pages) is in the set. */
  overlaps(space: number, page: number, pages: number): boolean {
    for (let at = page; at < page + pages; ) {
      const block = Math.floor(at / PAGES);
      const from = at - block * PAGES;
      const to = Math.min(PAGES, page + pages - block * PAGES);
      const index = this.#find(space, block);
      if (index >= 0 && this.#run(index, from, to, TEST) > 0) return true;
      at = (block + 1) * PAGES;
    }
    return false;
  }

  add(space: number, page: number, pages: number): void {
    for (let at = page; at < page + pages; ) {
      const block = Math.floor(at / PAGES);
      const from = at - block * PAGES;
      const to = Math.min(PAGES, page + pages - block * PAGES);
      let index = this.#find(space, block);
      if (index < 0) index = this.#take(space, block);
      this.#taken[index]! += this.#run(index, from, to, SET);
      at = (block + 1) * PAGES;
    }
  }

  remove(space: number, page: number, pages: number): void {
    if (pages > this.#numbers.used * 2 * PAGES) {
      // A huge range over few blocks: look at those instead.
      for (let index = 0; index < this.#numbers.used; index++)
        if (this.#numbers.isLive(index) && this.#space[index] === space) {
          const from = Math.max(page, this.#block[index]! * PAGES);
          const to = Math.min(page + pages, (this.#block[index]! + 1) * PAGES);
          if (from < to) this.remove(space, from, to - from);
        }
      return;
    }
    for (let at = page; at < page + pages; ) {
      const block = Math.floor(at / PAGES);
      const from = at - block * PAGES;
      const to = Math.min(PAGES, page + pages - block * PAGES);
      const index = this.#find(space, block);
      if (index >= 0) {
        this.#taken[index]! -= this.#run(index, from, to, CLEAR);
        if (this.#taken[index] === 0) this.#release(index);
      }
      at = (block + 1) * PAGES;
    }
  }

  /** The first page of [page, page + pages) that is not in the set; -1: all are. Cost: a step a page. */
  firstMissing(space: number, page: number, pages: number): number {
    let [block, index] = [-1, -1];
    for (let at = page; at < page + pages; at++) {
      if (Math.floor(at / PAGES) !== block) {
        block = Math.floor(at / PAGES);
        index = this.#find(space, block);
      }
      if (index < 0 || !this.#has(index, at - block * PAGES)) return at;
    }
    return -1;
  }

  /** Calls `visit` with each longest run of pages of `space`, ascending. Cost: a step a page. */
  eachRun(space: number, visit: (page: number, pages: number) => void): void {
    const blocks: number[] = [];
    for (let index = 0; index < this.#numbers.used; index++)
      if (this.#numbers.isLive(index) && this.#space[index] === space) blocks.push(index);
    blocks.sort((a, b) => this.#block[a]! - this.#block[b]!);
    let [start, end] = [0, 0];
    for (const index of blocks)
      for (let bit = 0; bit < PAGES; bit++) {
        if (!this.#has(index, bit)) continue;
        const page = this.#block[index]! * PAGES + bit;
        if (page !== end) {
          if (end > start) visit(start, end - start);
          start = page;
        }
        end = page + 1;
      }
    if (end > start) visit(start, end - start);
  }

  clear(): void {
    for (let index = 0; index < this.#numbers.used; index++) if (this.#numbers.isLive(index)) this.#release(index);
  }

  /** Bits [from, to) of a block: how many are set, become set, or become clear. */
  #run(index: number, from: number, to: number, what: number): number {
    const words = this.#words;
    let count = 0;
    for (let bit = from; bit < to; ) {
      const word = index * WORDS + (bit >>> 5);
      const low = bit & 31;
      const high = Math.min(32, to - (bit - low));
      const mask = ((high === 32 ? 0xffff_ffff : (1 << high) - 1) & ~((1 << low) - 1)) >>> 0;
      const old = words[word]!;
      if (what === SET) {
        words[word] = old | mask;
        count += ones(mask & ~old);
      } else {
        count += ones(mask & old);
        if (what === CLEAR) words[word] = old & ~mask;
      }
      bit += high - low;
    }
    return count;
  }

  #has(index: number, bit: number): boolean {
    return ((this.#words[index * WORDS + (bit >>> 5)]! >>> (bit & 31)) & 1) === 1;
  }

  #find(space: number, block: number): number {
    let index = this.#index.first(hashOf(block, space));
    while (index >= 0 && (this.#block[index] !== block || this.#space[index] !== space))
      index = this.#index.next(index);
    return index;
  }

  #take(space: number, block: number): number {
    const index = this.#numbers.take();
    if (index === this.#block.length) this.#grow();
    this.#words.fill(0, index * WORDS, (index + 1) * WORDS);
    this.#space[index] = space;
    this.#block[index] = block;
    this.#taken[index] = 0;
    this.#index.add(index, hashOf(block, space));
    return index;
  }

  #release(index: number): void {
    this.#index.remove(index, hashOf(this.#block[index]!, this.#space[index]!));
    this.#numbers.release(index);
  }

  #grow(): void {
    const blocks = this.#block.length * 2;
    this.#words = widened(this.#words, blocks * WORDS);
    this.#space = widened(this.#space, blocks);
    this.#block = widened(this.#block, blocks);
    this.#taken = widened(this.#taken, blocks);
    this.#index.grow(blocks, (index) => hashOf(this.#block[index]!, this.#space[index]!));
  }
}

const TEST = 0;
const SET = 1;
const CLEAR = 2;

function ones(word: number): number {
  let value = word - ((word >>> 1) & 0x5555_5555);
  value = (value & 0x3333_3333) + ((value >>> 2) & 0x3333_3333);
  return Math.imul((value + (value >>> 4)) & 0x0f0f_0f0f, 0x0101_0101) >>> 24;
}
