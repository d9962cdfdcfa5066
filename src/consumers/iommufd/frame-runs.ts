/**
 * Runs of physical pages, growing: what a walk over memory finds, in two arrays.
 *
 * Idea: neighbours join as they come, so that contiguous memory is one run and can become one large leaf.
 */

/** Runs of pages: `frames[i]` is the first of `counts[i]`. */
export class FrameRuns {
  frames: Float64Array = new Float64Array(64);
  counts: Int32Array = new Int32Array(64);
  length = 0;
  /** Pages of all runs. */
  pages = 0;

  add(frame: number, count: number): void {
    const last = this.length - 1;
    this.pages += count;
    if (last >= 0 && this.frames[last]! + this.counts[last]! === frame) {
      this.counts[last]! += count;
      return;
    }
    if (this.length === this.frames.length) this.#grow();
    this.frames[this.length] = frame;
    this.counts[this.length++] = count;
  }

  clear(): void {
    this.length = 0;
    this.pages = 0;
  }

  /** Every page of every run. */
  *each(): Generator<number> {
    for (let i = 0; i < this.length; i++) for (let k = 0; k < this.counts[i]!; k++) yield this.frames[i]! + k;
  }

  #grow(): void {
    const [frames, counts] = [this.frames, this.counts];
    this.frames = new Float64Array(frames.length * 2);
    this.counts = new Int32Array(counts.length * 2);
    this.frames.set(frames);
    this.counts.set(counts);
  }
}
