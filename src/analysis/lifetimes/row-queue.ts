/**
 * Rows in the order of their age: which one has been there longest.
 *
 * Idea: a list through the rows, linked both ways; a row leaves it from anywhere at the same cost. Several queues of one table share
 * the links, since a row waits in one of them only.
 */
import { FIRST_ROWS, widened } from "./columns.ts";

const NONE = -1;

/** The links of all queues of a table. */
export class QueueLinks {
  younger: Int32Array = new Int32Array(FIRST_ROWS);
  older: Int32Array = new Int32Array(FIRST_ROWS);

  grow(rows: number): void {
    this.younger = widened(this.younger, rows);
    this.older = widened(this.older, rows);
  }
}

export class RowQueue {
  length = 0;
  readonly #links: QueueLinks;
  #oldest = NONE;
  #youngest = NONE;

  constructor(links: QueueLinks) {
    this.#links = links;
  }

  /** -1: empty. */
  get oldest(): number {
    return this.#oldest;
  }

  /** -1: empty. */
  get youngest(): number {
    return this.#youngest;
  }

  push(row: number): void {
    const { younger, older } = this.#links;
    younger[row] = NONE;
    older[row] = this.#youngest;
    if (this.#youngest >= 0) younger[this.#youngest] = row;
    else this.#oldest = row;
    this.#youngest = row;
    this.length++;
  }

  remove(row: number): void {
    const [younger, older] = [this.#links.younger[row]!, this.#links.older[row]!];
    if (younger >= 0) this.#links.older[younger] = older;
    else this.#youngest = older;
    if (older >= 0) this.#links.younger[older] = younger;
    else this.#oldest = younger;
    this.length--;
  }
}
