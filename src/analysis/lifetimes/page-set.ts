/**
 * Sets of pages in many spaces at once: which pages of each device's address space are taken.
 *
 * Idea: a bitmap of 512 pages (2 MiB) a block; blocks are found by (space, block number) in a hash and given back when
 * they are empty. A range costs one step per 32 pages.
 * Not for: who holds a page, or how often.
 */
import { hashOf } from "./table.ts";

const WORDS = 16;
const PAGES = WORDS * 32;

export class PageSet {
  #words = new Uint32Array(64 * WORDS);
  #space = new Uint16Array(64);
  #block = new Float64Array(64);
  #taken = new Uint16Array(64);
  #next = new Int32Array(64);
  #slots = new Int32Array(128).fill(-1);
  #used = 0;
  #free = -1;

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
    if (pages > this.#used * 2 * PAGES) {
      // A huge range over few blocks: look at those instead.
      for (let index = 0; index < this.#used; index++)
        if (this.#taken[index]! > 0 && this.#space[index] === space) {
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

  clear(): void {
    this.#slots.fill(-1);
    this.#words.fill(0);
    this.#used = 0;
    this.#free = -1;
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

  #find(space: number, block: number): number {
    let index = this.#slots[hashOf(block * 65536 + space) & (this.#slots.length - 1)]!;
    while (index >= 0 && (this.#block[index] !== block || this.#space[index] !== space)) index = this.#next[index]!;
    return index;
  }

  #take(space: number, block: number): number {
    let index = this.#free;
    if (index >= 0) this.#free = this.#next[index]!;
    else {
      if (this.#used === this.#block.length) this.#grow();
      index = this.#used++;
    }
    this.#space[index] = space;
    this.#block[index] = block;
    this.#taken[index] = 0;
    const slot = hashOf(block * 65536 + space) & (this.#slots.length - 1);
    this.#next[index] = this.#slots[slot]!;
    this.#slots[slot] = index;
    return index;
  }

  #release(index: number): void {
    const slot = hashOf(this.#block[index]! * 65536 + this.#space[index]!) & (this.#slots.length - 1);
    let at = this.#slots[slot]!;
    if (at === index) this.#slots[slot] = this.#next[index]!;
    else {
      while (this.#next[at] !== index) at = this.#next[at]!;
      this.#next[at] = this.#next[index]!;
    }
    this.#next[index] = this.#free;
    this.#free = index;
  }

  /** Only when every block is in use: the free list is empty then. */
  #grow(): void {
    const blocks = this.#block.length * 2;
    const words = new Uint32Array(blocks * WORDS);
    words.set(this.#words);
    const space = new Uint16Array(blocks);
    space.set(this.#space);
    const block = new Float64Array(blocks);
    block.set(this.#block);
    const taken = new Uint16Array(blocks);
    taken.set(this.#taken);
    this.#words = words;
    this.#space = space;
    this.#block = block;
    this.#taken = taken;
    this.#next = new Int32Array(blocks);
    this.#slots = new Int32Array(blocks * 2).fill(-1);
    for (let index = 0; index < this.#used; index++) {
      const slot = hashOf(block[index]! * 65536 + space[index]!) & (this.#slots.length - 1);
      this.#next[index] = this.#slots[slot]!;
      this.#slots[slot] = index;
    }
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
