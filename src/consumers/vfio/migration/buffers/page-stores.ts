/** Which pages a buffer has: as a list, one number each, or as runs. Both in typed arrays: what is counted is what is held. */
import { PAGE_SIZE, type PhysAddr, PhysPage } from "../../../../base/index.ts";
import type { PhysVec } from "../../../../dma/index.ts";

export type PageRun = readonly [page: PhysPage, pages: number];

/** The pages of a buffer, in order. */
export interface PageStore {
  /** Bytes it takes. */
  readonly bytes: number;
  /** The page that has number `index` in the buffer. */
  pageAt(index: number): PhysPage;
  /** The next pieces of the buffer from its page `from` on, at most `most` of them: pages that the store knows to lie together. */
  vecs(from: number, most: number): PhysVec[];
}

/** One number per page. */
export class PageList implements PageStore {
  readonly #pages: Float64Array;

  constructor(runs: readonly PageRun[], pageCount: number) {
    this.#pages = new Float64Array(pageCount);
    let at = 0;
    for (const [page, pages] of runs) for (let i = 0; i < pages; i++) this.#pages[at++] = page + i;
  }

  get bytes(): number {
    return this.#pages.byteLength;
  }

  pageAt(index: number): PhysPage {
    return this.#pages[index] as PhysPage;
  }

  vecs(from: number, most: number): PhysVec[] {
    return Array.from({ length: Math.min(most, this.#pages.length - from) }, (_, i) => ({
      phys: PhysPage.start(this.#pages[from + i] as PhysPage),
      length: PAGE_SIZE,
    }));
  }
}

/** Page and number of pages of each run. */
export class PageRuns implements PageStore {
  /** Pairs: first page, and the buffer's pages before it. How many a run has, the next one's start says. */
  readonly #runs: Float64Array;
  readonly #pageCount: number;

  constructor(runs: readonly PageRun[], pageCount: number) {
    this.#runs = new Float64Array(runs.length * 2);
    this.#pageCount = pageCount;
    let before = 0;
    runs.forEach(([page, pages], i) => {
      this.#runs[i * 2] = page;
      this.#runs[i * 2 + 1] = before;
      before += pages;
    });
  }

  get bytes(): number {
    return this.#runs.byteLength;
  }

  pageAt(index: number): PhysPage {
    const run = this.#runOf(index);
    return (this.#runs[run * 2]! + index - this.#runs[run * 2 + 1]!) as PhysPage;
  }

  vecs(from: number, most: number): PhysVec[] {
    const vecs: PhysVec[] = [];
    for (let at = from, run = this.#runOf(from); at < this.#pageCount && vecs.length < most; run++) {
      const end = this.#runs[run * 2 + 3] ?? this.#pageCount;
      const phys = ((this.#runs[run * 2]! + at - this.#runs[run * 2 + 1]!) * PAGE_SIZE) as PhysAddr;
      vecs.push({ phys, length: (end - at) * PAGE_SIZE });
      at = end;
    }
    return vecs;
  }

  /** The run that holds page `index` of the buffer: by halving. */
  #runOf(index: number): number {
    let low = 0;
    let high = this.#runs.length / 2;
    while (high - low > 1) {
      const middle = (low + high) >>> 1;
      if (this.#runs[middle * 2 + 1]! <= index) low = middle;
      else high = middle;
    }
    return low;
  }
}

/** Pages in the order they were given, as runs of those that lie together. */
export class RunBuilder {
  readonly runs: [PhysPage, number][] = [];

  add(page: PhysPage, pages: number): void {
    const last = this.runs.at(-1);
    if (last && last[0] + last[1] === page) last[1] += pages;
    else this.runs.push([page, pages]);
  }
}
