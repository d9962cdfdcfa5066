/**
 * The segments of live mappings: for each its device address, its address in memory, and its length.
 *
 * Idea: columns, and for each mapping a chain of its segments in the order in which they were mapped. A mapping of one segment has none
 * here: its row in the table of lifetimes says the same. Memory grows with what is live, not with the trace.
 */
import { ChainedIndex, hashOf } from "./chained-index.ts";
import { FIRST_ROWS, RowNumbers, widened } from "./columns.ts";

/** End of a chain. */
export const NO_SEGMENT = -1;

export class Segments {
  /** Device address, bytes. */
  iova: Float64Array = new Float64Array(FIRST_ROWS);
  /** Address in memory, bytes; -1: unknown. */
  phys: Float64Array = new Float64Array(FIRST_ROWS);
  /** Bytes. */
  length: Float64Array = new Float64Array(FIRST_ROWS);
  /** The next of the same mapping, or {@link NO_SEGMENT}. */
  next: Int32Array = new Int32Array(FIRST_ROWS);
  /** The mapping, where it is in the index. */
  #owner: Float64Array = new Float64Array(FIRST_ROWS).fill(-1);
  readonly #numbers = new RowNumbers();
  /** By owner and device address: only for mappings whose segments are unmapped one by one. */
  readonly #index = new ChainedIndex();

  add(iova: number, phys: number, length: number): number {
    const at = this.#numbers.take();
    if (at === this.iova.length) this.#grow();
    this.iova[at] = iova;
    this.phys[at] = phys;
    this.length[at] = length;
    this.next[at] = NO_SEGMENT;
    return at;
  }

  /** Gives back the chain that begins at `first`. */
  release(first: number): void {
    for (let at = first; at >= 0; ) {
      const next = this.next[at]!;
      if (this.#owner[at]! >= 0) {
        this.#index.remove(at, this.#hash(at));
        this.#owner[at] = -1;
      }
      this.#numbers.release(at);
      at = next;
    }
  }

  /** Enters `at` under `owner`, so that {@link find} finds it by its device address. */
  enter(at: number, owner: number): void {
    if (this.#owner[at]! >= 0) return;
    this.#owner[at] = owner;
    this.#index.add(at, this.#hash(at));
  }

  /** The segment of `owner` that was entered and begins at `iova`; -1: none. */
  find(owner: number, iova: number): number {
    let at = this.#index.first(hashOf(iova, owner));
    while (at >= 0 && (this.iova[at] !== iova || this.#owner[at] !== owner)) at = this.#index.next(at);
    return at;
  }

  #hash(at: number): number {
    return hashOf(this.iova[at]!, this.#owner[at]!);
  }

  #grow(): void {
    const rows = this.iova.length * 2;
    this.iova = widened(this.iova, rows);
    this.phys = widened(this.phys, rows);
    this.length = widened(this.length, rows);
    this.next = widened(this.next, rows);
    const owners = new Float64Array(rows).fill(-1);
    owners.set(this.#owner);
    this.#owner = owners;
    this.#index.grow(rows, (at) => this.#hash(at));
  }
}
