/**
 * Columns and row numbers: what every table of this folder is made of.
 *
 * Idea: a table is typed arrays side by side, a row a number. A row that was given back is given out again first, so that memory
 * follows what is live at once. Not for: keys (chained-index.ts).
 */

/** One value a row. */
export type Column = Uint8Array | Uint16Array | Uint32Array | Int32Array | Float64Array;

/** Rows that a table begins with; it doubles when they are all in use. */
export const FIRST_ROWS = 1024;

/** The same values in a column of `rows` rows; the new ones are 0. */
export function widened<T extends Column>(column: T, rows: number): T {
  const wider = new (column.constructor as new (rows: number) => T)(rows);
  wider.set(column as never);
  return wider;
}

/** Which rows of a table are in use. */
export class RowNumbers {
  /** Rows in use. */
  live = 0;
  /** Rows that were ever in use lie in [0, used). */
  used = 0;
  readonly #free: number[] = [];
  #inUse = new Uint8Array(FIRST_ROWS);

  /** A free row; one beyond the columns if `used` was their length: the table then grows. */
  take(): number {
    const row = this.#free.pop() ?? this.used++;
    if (row === this.#inUse.length) this.#inUse = widened(this.#inUse, row * 2);
    this.#inUse[row] = 1;
    this.live++;
    return row;
  }

  release(row: number): void {
    this.#inUse[row] = 0;
    this.#free.push(row);
    this.live--;
  }

  isLive(row: number): boolean {
    return this.#inUse[row] === 1;
  }
}
