/**
 * Free runs of numbers, given out and taken back: pages of RAM, pages of a window for BARs.
 *
 * Idea: a sorted list of disjoint runs [start, end). First fit from below, or at a place that chance picks; neighbours
 * join again when they are given back. Terabytes cost one entry until they are cut up.
 */
import { assert, type Random } from "../../base/index.ts";

interface Run {
  start: number;
  end: number;
}

export class Extents {
  readonly #runs: Run[];
  #free = 0;

  constructor(runs: readonly (readonly [start: number, end: number])[]) {
    this.#runs = runs.map(([start, end]) => ({ start, end }));
    for (const { start, end } of this.#runs) this.#free += end - start;
  }

  /** How many are free. */
  get free(): number {
    return this.#free;
  }

  get largest(): number {
    return this.#runs.reduce((largest, { start, end }) => Math.max(largest, end - start), 0);
  }

  /** `count` in a row, the first a multiple of `align`, the last at most `last`; -1 if there are none. */
  take(count: number, align = 1, last: number = Number.MAX_SAFE_INTEGER, random?: Random): number {
    const fits: number[] = [];
    for (let i = 0; i < this.#runs.length; i++) {
      const { start, end } = this.#runs[i]!;
      const first = Math.ceil(start / align) * align;
      if (first + count > Math.min(end, last + 1)) continue;
      fits.push(i);
      if (!random) break;
    }
    if (fits.length === 0) return -1;
    const index = random ? random.pick(fits) : fits[0]!;
    const { start, end } = this.#runs[index]!;
    const lowest = Math.ceil(start / align);
    const highest = Math.floor((Math.min(end, last + 1) - count) / align);
    const at = (random ? random.between(lowest, highest) : lowest) * align;
    const rest = [
      { start, end: at },
      { start: at + count, end },
    ].filter((run) => run.start < run.end);
    this.#runs.splice(index, 1, ...rest);
    this.#free -= count;
    return at;
  }

  /** Gives [start, + count) back, which was taken. */
  give(start: number, count: number): void {
    const end = start + count;
    let at = this.#runs.findIndex((run) => run.end >= start);
    if (at < 0) at = this.#runs.length;
    const next = this.#runs[at];
    assert(!next || next.start >= end || next.end === start, `pages ${start} to ${end} are given back, but were free`);
    this.#free += count;
    if (next?.end === start) {
      next.end = end;
      const after = this.#runs[at + 1];
      assert(!after || after.start >= end, `pages ${start} to ${end} are given back, but were free`);
      if (after?.start === end) {
        next.end = after.end;
        this.#runs.splice(at + 1, 1);
      }
    } else if (next?.start === end) next.start = start;
    else this.#runs.splice(at, 0, { start, end });
  }
}
