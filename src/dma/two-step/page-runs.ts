/**
 * Collects the pages of a vector link before they are linked. All ranges share the two buffers of this file: a call fills
 * and empties one before it returns, and such calls never nest.
 */
import { PAGE_SIZE } from "../../base/index.ts";
import type { PhysColumns, PhysVec } from "../vectors.ts";

/** A constant of this file's own folds into the code: see PAGE_SIZE. */
const PAGE = PAGE_SIZE;
/** A power of two: multiplying by it is exact. */
const PAGES_PER_BYTE = 1 / PAGE_SIZE;
/** No page is this one. */
const NO_FRAME = -2;

/** What is no piece: it takes the long way, which says so. */
const NOTHING: Partial<PhysVec> = {};

/** Frames of single pages: small integers, of memory below 8 TiB. */
class PageFrames {
  frames: Int32Array = new Int32Array(512);

  /** Takes the first of `count` pieces that are whole single pages and that no neighbour continues; how many. */
  collect(pieces: readonly PhysVec[] | PhysColumns, count: number): number {
    if (this.frames.length < count) this.frames = new Int32Array(count * 2);
    const { frames } = this;
    const single = Array.isArray(pieces)
      ? collectVecs(pieces, count, frames)
      : collectColumns(pieces as PhysColumns, count, frames);
    return single < count && single > 0 ? single - 1 : single; // the last one may go on into what follows
  }
}

function collectVecs(vecs: readonly PhysVec[], count: number, frames: Int32Array): number {
  let next = NO_FRAME;
  for (let i = 0; i < count; i++) {
    const { phys, length } = vecs[i] ?? NOTHING;
    if (typeof phys !== "number") return i;
    const frame = (phys / PAGE) | 0;
    if (length !== PAGE || frame * PAGE !== phys || frame === next) return i;
    frames[i] = frame;
    next = (frame + 1) | 0;
  }
  return count;
}

function collectColumns({ phys, length }: PhysColumns, count: number, frames: Int32Array): number {
  if (typeof length === "number") return length === PAGE ? collectPages(phys, count, frames) : 0;
  let whole = 0;
  while (whole < count && length[whole] === PAGE) whole++;
  return collectPages(phys, whole, frames);
}

/** A function of one loop over columns of numbers: nothing in it is an object. */
function collectPages(phys: Float64Array, count: number, frames: Int32Array): number {
  let next = NO_FRAME;
  for (let i = 0; i < count; i++) {
    const address = phys[i]!;
    const frame = (address * PAGES_PER_BYTE) | 0;
    if (frame * PAGE !== address || frame === next) return i;
    frames[i] = frame;
    next = (frame + 1) | 0;
  }
  return count;
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
