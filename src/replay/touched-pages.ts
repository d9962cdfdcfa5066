/**
 * Which pages of memory a load touches at all, in runs: however often it does.
 *
 * Idea: a byte a page, in blocks of 2 MiB that are there once one of their pages is touched. Cost: a look-up a run of pages, and
 * 512 bytes for every block.
 */
import { PAGE_SIZE } from "../base/index.ts";
import type { ReplayRequest } from "./request.ts";

const BLOCK_PAGES = 512;

export class TouchedPages {
  readonly #blocks = new Map<number, Uint8Array>();
  /** Pages, each counted once. */
  count = 0;

  constructor(loads: Iterable<ReplayRequest>) {
    for (const { vecs } of loads)
      for (const { phys, length } of vecs)
        this.#add(Math.floor(phys / PAGE_SIZE), Math.ceil((phys + length) / PAGE_SIZE));
  }

  #add(first: number, end: number): void {
    for (let page = first; page < end; ) {
      const number = Math.floor(page / BLOCK_PAGES);
      let block = this.#blocks.get(number);
      if (!block) {
        block = new Uint8Array(BLOCK_PAGES);
        this.#blocks.set(number, block);
      }
      const start = number * BLOCK_PAGES;
      for (const stop = Math.min(end, start + BLOCK_PAGES); page < stop; page++) {
        if (block[page - start] === 0) this.count++;
        block[page - start] = 1;
      }
    }
  }

  /** Runs of touched pages as bytes, ascending. */
  *runs(): Generator<readonly [start: number, end: number]> {
    let [start, end] = [-1, -1];
    for (const number of [...this.#blocks.keys()].sort((a, b) => a - b)) {
      const block = this.#blocks.get(number)!;
      for (let i = 0; i < BLOCK_PAGES; i++) {
        if (block[i] === 0) continue;
        const page = number * BLOCK_PAGES + i;
        if (page !== end) {
          if (start >= 0) yield [start * PAGE_SIZE, end * PAGE_SIZE];
          start = page;
        }
        end = page + 1;
      }
    }
    if (start >= 0) yield [start * PAGE_SIZE, end * PAGE_SIZE];
  }
}
