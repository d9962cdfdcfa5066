/**
 * The memory of a guest: blocks of guest addresses, and their pages in a row, numbered from 0.
 *
 * A guest's devices use guest addresses on the bus, so a log of writes speaks in them; bitmaps and streams go by number.
 */
import { PAGE_SIZE } from "../../../../base/index.ts";
import { badLayout } from "./errors.ts";

/** Guest addresses, whole pages. Bytes. */
export interface RamBlock {
  /** First address. */
  readonly start: number;
  /** How many. */
  readonly length: number;
}

/** Where a guest's memory lies, and how its pages are numbered. */
export class RamLayout {
  /** Ascending, disjoint. */
  readonly blocks: readonly RamBlock[];
  /** Pages of all blocks. */
  readonly pageCount: number;
  /** Pages before each block. */
  readonly #before: readonly number[];

  /** @throws DmaError ERR_DMA_RAM_LAYOUT (EINVAL) unless blocks are whole pages, ascending and disjoint, and there is one */
  constructor(blocks: readonly RamBlock[]) {
    const before: number[] = [];
    let pages = 0;
    let end = 0;
    for (const { start, length } of blocks) {
      const isWhole = [start, length].every((value) => Number.isSafeInteger(value) && value % PAGE_SIZE === 0);
      if (!isWhole || length <= 0 || start < end || start + length > Number.MAX_SAFE_INTEGER) throw badLayout(blocks);
      before.push(pages);
      pages += length / PAGE_SIZE;
      end = start + length;
    }
    if (pages === 0) throw badLayout(blocks);
    this.blocks = blocks;
    this.pageCount = pages;
    this.#before = before;
  }

  /** Guest address of page `number`. Valid below the count. */
  addressOf(number: number): number {
    let block = this.#before.length - 1;
    while (this.#before[block]! > number) block--;
    return this.blocks[block]!.start + (number - this.#before[block]!) * PAGE_SIZE;
  }

  /** Calls back with the numbers of pages, in runs, that [address, + length) touches; what is no memory is left out. */
  eachRun(address: number, length: number, run: (first: number, count: number) => void): void {
    const end = address + length;
    this.blocks.forEach((block, i) => {
      const from = Math.max(address, block.start);
      const to = Math.min(end, block.start + block.length);
      if (from >= to) return;
      const first = Math.floor((from - block.start) / PAGE_SIZE);
      run(this.#before[i]! + first, Math.ceil((to - block.start) / PAGE_SIZE) - first);
    });
  }
}
