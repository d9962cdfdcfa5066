/**
 * Intervals of an address space, found by their start, by what they contain, or by what they touch; they may overlap.
 *
 * Idea: an interval is kept by the size of the smallest power of two that holds it, under the multiple of that size in which
 * it starts. So it lies in that block and at most the next one, and a look-up asks two blocks per size in use.
 * Promises: adding and removing cost one look-up; finding costs one or two per size class in use (rarely more than five),
 * plus the neighbours in the same block.
 * Not for: addresses beyond 2^53.
 */
import { PAGE_SIZE } from "../base/index.ts";

export class Spans<T> implements Iterable<T> {
  readonly #start: (item: T) => number;
  readonly #length: (item: T) => number;
  /** By size class: blocks of items. Class 0 is what lies inside one page. */
  readonly #classes: Map<number, T[]>[] = [];
  #size = 0;

  /** An item's start and length must not change while it is here; lengths are 1 or more. */
  constructor(start: (item: T) => number, length: (item: T) => number) {
    this.#start = start;
    this.#length = length;
  }

  get size(): number {
    return this.#size;
  }

  add(item: T): void {
    const start = this.#start(item);
    const index = classOf(start, this.#length(item));
    while (this.#classes.length <= index) this.#classes.push(new Map());
    const blocks = this.#classes[index]!;
    const key = Math.floor(start / blockOf(index));
    const block = blocks.get(key);
    if (block === undefined) blocks.set(key, [item]);
    else block.push(item);
    this.#size++;
  }

  /** False if it was not here. */
  delete(item: T): boolean {
    const start = this.#start(item);
    const index = classOf(start, this.#length(item));
    const key = Math.floor(start / blockOf(index));
    const block = this.#classes[index]?.get(key);
    const at = block?.indexOf(item) ?? -1;
    if (at < 0) return false;
    if (block!.length === 1) this.#classes[index]!.delete(key);
    else block!.splice(at, 1);
    this.#size--;
    return true;
  }

  clear(): void {
    this.#classes.length = 0;
    this.#size = 0;
  }

  /** Items that start at `address`, oldest first within a size. */
  startingAt(address: number): T[] {
    const found: T[] = [];
    for (let index = 0; index < this.#classes.length; index++) {
      const block = this.#classes[index]!.get(Math.floor(address / blockOf(index)));
      if (block !== undefined) for (const item of block) if (this.#start(item) === address) found.push(item);
    }
    return found;
  }

  /** Items that contain all of [address, + length). */
  containing(address: number, length = 1): T[] {
    return this.overlapping(address, 1).filter(
      (item) => this.#start(item) <= address && address + length <= this.#start(item) + this.#length(item),
    );
  }

  /** Items that have a byte of [address, + length). */
  overlapping(address: number, length: number): T[] {
    const found: T[] = [];
    const end = address + length;
    for (let index = 0; index < this.#classes.length; index++) {
      const blocks = this.#classes[index]!;
      if (blocks.size === 0) continue;
      const size = blockOf(index);
      const first = Math.floor(address / size) - (index > 0 ? 1 : 0);
      const last = Math.floor((end - 1) / size);
      if (last - first > blocks.size) for (const block of blocks.values()) this.#pick(block, address, end, found);
      else
        for (let key = first; key <= last; key++) {
          const block = blocks.get(key);
          if (block !== undefined) this.#pick(block, address, end, found);
        }
    }
    return found;
  }

  *[Symbol.iterator](): Iterator<T> {
    for (const blocks of this.#classes) for (const block of blocks.values()) yield* block;
  }

  #pick(block: readonly T[], address: number, end: number, found: T[]): void {
    for (const item of block) {
      const start = this.#start(item);
      if (start < end && address < start + this.#length(item)) found.push(item);
    }
  }
}

const blockOf = (index: number): number => PAGE_SIZE * 2 ** index;

function classOf(start: number, length: number): number {
  if (Math.floor(start / PAGE_SIZE) === Math.floor((start + length - 1) / PAGE_SIZE)) return 0;
  let index = 1;
  while (blockOf(index) < length) index++;
  return index;
}
