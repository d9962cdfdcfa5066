/**
 * Collects the pages of a vector link before they are linked. All ranges share the two buffers of this file: a call fills
 * and empties one before it returns, and such calls never nest.
 */
import { PAGE_SIZE } from "../../base/index.ts";
import type { PhysVec } from "../vectors.ts";

/** A constant of this file's own folds into the code: see PAGE_SIZE. */
const PAGE = PAGE_SIZE;
/** No page goes on from this one. */
const NO_FRAME = -2;

/** What is no piece: it takes the long way, which says so. */
const NOTHING: Partial<PhysVec> = {};

/** Frames of single pages. */
class PageFrames {
  frames: Float64Array = new Float64Array(512);

  /** Takes the first of `vecs` that are whole single pages and that no neighbour continues; how many. */
  collect(vecs: readonly PhysVec[]): number {
    const count = vecs.length;
    if (this.frames.length < count) this.frames = new Float64Array(count * 2);
    const { frames } = this;
    let before = NO_FRAME;
    let single = 0;
    while (single < count) {
      const { phys, length } = vecs[single] ?? NOTHING;
      if (typeof phys !== "number") break;
      const frame = phys / PAGE;
      if (length !== PAGE || frame !== Math.floor(frame) || frame === before + 1) break;
      frames[single++] = frame;
      before = frame;
    }
    if (single < count && single > 0) single--; // the last one may go on into what follows
    return single;
  }
}

/** Runs of pages, physically adjacent ones joined. */
class PageRuns {
  physPages: Float64Array = new Float64Array(256);
  pages: Int32Array = new Int32Array(256);
  count = 0;

  clear(): void {
    this.count = 0;
  }

  add(physPage: number, pages: number): void {
    const last = this.count - 1;
    if (last >= 0 && this.physPages[last]! + this.pages[last]! === physPage) {
      this.pages[last]! += pages;
      return;
    }
    if (this.count === this.pages.length) this.#grow();
    this.physPages[this.count] = physPage;
    this.pages[this.count++] = pages;
  }

  #grow(): void {
    const [physPages, pages] = [this.physPages, this.pages];
    this.physPages = new Float64Array(this.count * 2);
    this.pages = new Int32Array(this.count * 2);
    this.physPages.set(physPages);
    this.pages.set(pages);
  }
}

export const FRAMES: PageFrames = new PageFrames();
export const RUNS: PageRuns = new PageRuns();
