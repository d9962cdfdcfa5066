/**
 * Which pages of some memory a call has pinned so far: by their index, not by their number.
 *
 * Idea: a call that goes well never needs their numbers again, since tables hold them; one that fails reads them back. So
 * noting a million pages costs what noting one range does.
 */
import { FrameRuns } from "./frame-runs.ts";

/** Ranges of indices, ascending. */
export class FreshPages {
  /** Pages of all ranges. */
  pages = 0;
  readonly #firsts: number[] = [];
  readonly #counts: number[] = [];

  /** Pages from `index` on, above all that were added before. */
  add(index: number, count: number): void {
    if (count === 0) return;
    const last = this.#firsts.length - 1;
    this.pages += count;
    if (last >= 0 && this.#firsts[last]! + this.#counts[last]! === index) this.#counts[last]! += count;
    else {
      this.#firsts.push(index);
      this.#counts.push(count);
    }
  }

  /** Their numbers, out of those of consecutive pages from index `first` on. */
  outOf(numbers: FrameRuns, first: number): FrameRuns {
    const runs = new FrameRuns();
    let [run, skipped] = [0, first]; // `skipped`: index of the first page of the run
    for (let i = 0; i < this.#firsts.length; i++) {
      let at = this.#firsts[i]!;
      const end = at + this.#counts[i]!;
      while (at < end) {
        while (skipped + numbers.counts[run]! <= at) skipped += numbers.counts[run++]!;
        const count = Math.min(end, skipped + numbers.counts[run]!) - at;
        runs.add(numbers.frames[run]! + (at - skipped), count);
        at += count;
      }
    }
    return runs;
  }
}
