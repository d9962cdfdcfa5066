/**
 * Which rows of a table have a key: chains over a hash, newest first.
 *
 * Idea: the index holds row numbers by hash, the table holds the keys: who walks a chain compares the keys. A chain is
 * linked both ways, so that taking a row out costs the same wherever it stands, however many share its key.
 * Not for: keys themselves, or which rows are free (columns.ts).
 */
import { FIRST_ROWS, widened } from "./columns.ts";

const NONE = -1;

export class ChainedIndex {
  #slots = new Int32Array(FIRST_ROWS * 2).fill(NONE);
  #next = new Int32Array(FIRST_ROWS);
  #previous = new Int32Array(FIRST_ROWS);

  /** The newest row of the chain of `hash`; -1: none. Rows of other keys are in it too. */
  first(hash: number): number {
    return this.#slots[hash & (this.#slots.length - 1)]!;
  }

  /** The row behind `row` in its chain; -1: none. */
  next(row: number): number {
    return this.#next[row]!;
  }

  add(row: number, hash: number): void {
    const slot = hash & (this.#slots.length - 1);
    const newest = this.#slots[slot]!;
    this.#next[row] = newest;
    this.#previous[row] = NONE;
    if (newest >= 0) this.#previous[newest] = row;
    this.#slots[slot] = row;
  }

  remove(row: number, hash: number): void {
    const [next, previous] = [this.#next[row]!, this.#previous[row]!];
    if (previous >= 0) this.#next[previous] = next;
    else this.#slots[hash & (this.#slots.length - 1)] = next;
    if (next >= 0) this.#previous[next] = previous;
  }

  /** Makes room for `rows` rows; each keeps its place before the older ones of its key. */
  grow(rows: number, hashOf: (row: number) => number): void {
    const old = this.#slots;
    const next = this.#next;
    this.#slots = new Int32Array(rows * 2).fill(NONE);
    this.#next = widened(next, rows);
    this.#previous = widened(this.#previous, rows);
    const chain: number[] = [];
    for (const newest of old) {
      // What shares a slot now shared one before: each old chain is split by itself.
      for (let row = newest; row >= 0; row = next[row]!) chain.push(row);
      for (let row = chain.pop(); row !== undefined; row = chain.pop()) this.add(row, hashOf(row));
    }
  }

  clear(): void {
    this.#slots.fill(NONE);
  }
}

/** Mixes a whole number of up to 53 bits, and a small one beside it. */
export function hashOf(value: number, beside = 0): number {
  const low = value | 0;
  const high = (value / 0x1_0000_0000) | 0;
  let mixed = Math.imul(low ^ Math.imul(high, 0x9e3779b1) ^ Math.imul(beside, 0x27d4eb2f), 0x85ebca6b);
  mixed ^= mixed >>> 13;
  mixed = Math.imul(mixed, 0xc2b2ae35);
  return (mixed ^ (mixed >>> 16)) >>> 0;
}
