/**
 * Runs of physical pages, growing: what a walk over memory finds, in two arrays.
 *
 * Idea: neighbours join as they come, so that contiguous memory is one run and can become one large leaf. Whoever fills them does so in
 * parts: arrays for a gigabyte of scattered pages would cost more than what is done with them.
 */

/** What waits to be lent again: fresh arrays cost more than what is done with them. At most room for 64 MiB of single pages. */
let idle: FrameRuns | undefined;
const MOST_KEPT = 16_384;

/** Runs of pages: `frames[i]` is the first of `counts[i]`. */
export class FrameRuns {
  frames: Float64Array<ArrayBuffer>;
  counts: Int32Array<ArrayBuffer>;
  length = 0;
  /** Pages of all runs. */
  pages = 0;

  constructor() {
    this.frames = new Float64Array(64);
    this.counts = new Int32Array(64);
  }

  /** Empty ones that nobody else has until {@link giveBack}; if that is never called, nothing is lost but time. */
  static borrow(): FrameRuns {
    const runs = idle ?? new FrameRuns();
    idle = undefined;
    return runs;
  }

  /** The borrower needs them no more. */
  giveBack(): void {
    this.clear();
    if (this.frames.length <= MOST_KEPT && this.frames.length >= (idle?.frames.length ?? 0)) idle = this;
  }

  /** The page that would join the last run. */
  get next(): number {
    return this.length === 0 ? -1 : this.frames[this.length - 1]! + this.counts[this.length - 1]!;
  }

  add(frame: number, count: number): void {
    const last = this.length - 1;
    this.pages += count;
    if (last >= 0 && this.frames[last]! + this.counts[last]! === frame) {
      this.counts[last]! += count;
      return;
    }
    if (this.length === this.frames.length) this.grow();
    this.frames[this.length] = frame;
    this.counts[this.length++] = count;
  }

  /** Adds the first `count` of `numbers`, a page each. */
  addPages(numbers: Float64Array, count: number): void {
    while (this.frames.length - this.length < count) this.grow();
    const { frames, counts } = this;
    let runs = this.length;
    let next = runs > 0 ? frames[runs - 1]! + counts[runs - 1]! : -1;
    for (let i = 0; i < count; i++) {
      const frame = numbers[i]!;
      if (frame === next) counts[runs - 1]!++;
      else {
        frames[runs] = frame;
        counts[runs++] = 1;
      }
      next = frame + 1;
    }
    this.length = runs;
    this.pages += count;
  }

  clear(): void {
    this.length = 0;
    this.pages = 0;
  }

  /** Every page of every run. */
  *each(): Generator<number> {
    for (let i = 0; i < this.length; i++) for (let k = 0; k < this.counts[i]!; k++) yield this.frames[i]! + k;
  }

  /** Makes room for more runs. */
  grow(): void {
    const [frames, counts] = [this.frames, this.counts];
    this.frames = new Float64Array(frames.length * 4);
    this.counts = new Int32Array(counts.length * 4);
    this.frames.set(frames);
    this.counts.set(counts);
  }
}
