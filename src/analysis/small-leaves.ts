/**
 * Small leaves: leaves of 4 KiB that together cover an aligned block of 2 MiB of memory, at addresses that run with it.
 *
 * Idea: a block of memory has a bit for each of its pages, for one distance between address and memory. A leaf sets the bits of its
 * pages if there is a moment at which it and all others of the block are mapped; if there is none, or the distance is another,
 * the block begins anew with it. When all bits are set one large leaf could have been there.
 * Promises: a block is counted once for each time that it comes together. Not for: more blocks at once than {@link MOST_BLOCKS}; the
 * oldest are forgotten, and `isCut` says so.
 */
import { PAGE_SIZE } from "../base/index.ts";

const LARGE = 2 ** 21;
const PAGES = LARGE / PAGE_SIZE;
/** Blocks that are told apart at once: 8 MiB of memory for 32 GiB. */
const MOST_BLOCKS = 16_384;

interface Block {
  distance: number;
  readonly bits: Uint32Array;
  pages: number;
  /** When the last of them began, and the first ends. */
  fromNs: number;
  toNs: number;
}

/** Blocks of memory that leaves of 4 KiB cover. */
export class SmallLeaves {
  /** Blocks whose addresses are aligned as the memory is: one leaf would do as things are. */
  fits = 0;
  /** Blocks that other addresses would make one leaf. */
  misplaced = 0;
  isCut = false;
  /** The first block that was found. */
  first: { readonly iova: number; readonly phys: number } | undefined;
  readonly #blocks = new Map<number, Block>();

  /** Leaves for [iova, iova + length), which leads to memory from `phys` on, from one time to another. */
  add(iova: number, phys: number, length: number, fromNs: number, toNs: number): void {
    const distance = phys - iova;
    const end = phys + length;
    const first = Math.ceil(phys / LARGE) * LARGE;
    const last = Math.floor(end / LARGE) * LARGE;
    if (last < first) {
      this.#part(Math.floor(phys / LARGE), phys % LARGE, length, distance, fromNs, toNs);
      return;
    }
    if (first > phys) this.#part(Math.floor(phys / LARGE), phys % LARGE, first - phys, distance, fromNs, toNs);
    // Not one by one: a damaged trace may say exabytes.
    if (last > first) this.#found(first - distance, first, distance, (last - first) / LARGE);
    if (end > last) this.#part(last / LARGE, 0, end - last, distance, fromNs, toNs);
  }

  #part(number: number, offset: number, length: number, distance: number, fromNs: number, toNs: number): void {
    let block = this.#blocks.get(number);
    if (!block) {
      if (this.#blocks.size === MOST_BLOCKS) {
        this.#blocks.delete(this.#blocks.keys().next().value!);
        this.isCut = true;
      }
      block = { distance, bits: new Uint32Array(PAGES / 32), pages: 0, fromNs, toNs };
      this.#blocks.set(number, block);
    }
    const isTogether = block.distance === distance && fromNs < block.toNs && toNs > block.fromNs;
    if (!isTogether) {
      block.bits.fill(0);
      block.pages = 0;
      block.distance = distance;
      block.fromNs = fromNs;
      block.toNs = toNs;
    }
    block.fromNs = Math.max(block.fromNs, fromNs);
    block.toNs = Math.min(block.toNs, toNs);
    const first = Math.floor(offset / PAGE_SIZE);
    const last = Math.ceil((offset + length) / PAGE_SIZE);
    for (let page = first; page < last; page++) {
      const bit = 1 << (page % 32);
      if ((block.bits[page >> 5]! & bit) !== 0) continue;
      block.bits[page >> 5]! |= bit;
      block.pages++;
    }
    if (block.pages < PAGES) return;
    this.#blocks.delete(number);
    this.#found(number * LARGE - distance, number * LARGE, distance, 1);
  }

  #found(iova: number, phys: number, distance: number, blocks: number): void {
    if (distance % LARGE === 0) this.fits += blocks;
    else this.misplaced += blocks;
    this.first ??= { iova, phys };
  }
}
