/**
 * The columns a reader fills: one batch, reused.
 *
 * Idea: rows are appended until either the rows or the words run out; the reader then hands the batch on and starts
 * over in the same memory. Words grow only when one single event needs more than all of them.
 */
import type { EventBatch } from "./events.ts";

/** Words set aside for each row: six fields, and some for strings and lists. */
const WORDS_PER_ROW = 16;

export class Columns implements EventBatch {
  count = 0;
  /** Words in use. */
  used = 0;
  readonly rows: number;
  readonly type: Uint32Array;
  readonly cpu: Uint16Array;
  readonly pid: Int32Array;
  readonly task: Uint32Array;
  readonly buffer: Uint16Array;
  readonly chain: Uint32Array;
  readonly timeNs: Float64Array;
  readonly start: Uint32Array;
  words: Uint32Array;

  constructor(rows: number) {
    this.rows = rows;
    this.type = new Uint32Array(rows);
    this.cpu = new Uint16Array(rows);
    this.pid = new Int32Array(rows);
    this.task = new Uint32Array(rows);
    this.buffer = new Uint16Array(rows);
    this.chain = new Uint32Array(rows);
    this.timeNs = new Float64Array(rows);
    this.start = new Uint32Array(rows);
    this.words = new Uint32Array(rows * WORDS_PER_ROW);
  }

  /** Whether an event of up to `words` words still fits; an empty batch makes room for any. */
  fits(words: number): boolean {
    if (this.count === this.rows) return false;
    if (this.used + words <= this.words.length) return true;
    if (this.count > 0) return false;
    this.words = new Uint32Array(words * 2);
    return true;
  }

  /** Appends words inside an event whose length was not known before: grows, keeping what is there. */
  grow(words: number): void {
    if (this.used + words <= this.words.length) return;
    const wider = new Uint32Array((this.used + words) * 2);
    wider.set(this.words.subarray(0, this.used));
    this.words = wider;
  }

  clear(): void {
    this.count = 0;
    this.used = 0;
  }
}
