/** RAM, or a device's own memory, in large blocks first: 1 MiB, 64 KiB, then single pages, so that a buffer is few vectors. */
import { PAGE_SIZE, PhysAddr, PhysPage } from "../../../base/index.ts";
import type { P2pProvider } from "../../../p2p/index.ts";
import type { PageAllocator } from "../../../platform/index.ts";
import { noMemory } from "../errors.ts";
import type { StorageVec } from "../storage.ts";

/** Pages of the blocks that are tried. */
const BLOCKS: readonly number[] = [256, 16, 1];

/**
 * So many pages, in as few blocks as there are.
 *
 * @param provider whose memory the allocator gives; absent: RAM
 * @throws DmaError ERR_DMA_BUF_NO_MEMORY (ENOMEM); everything is given back then
 */
export function allocateBlocks(allocator: PageAllocator, pages: number, provider?: P2pProvider): StorageVec[] {
  const vecs: StorageVec[] = [];
  let size = 0;
  for (let left = pages; left > 0; ) {
    while (size < BLOCKS.length && BLOCKS[size]! > left) size++;
    const block = BLOCKS[size];
    if (block === undefined) {
      freeBlocks(allocator, vecs);
      throw noMemory(pages * PAGE_SIZE);
    }
    const page = allocator.allocatePages(block);
    if (page === undefined) {
      size++; // no block of this size any more: smaller ones, for the rest
      continue;
    }
    vecs.push({ phys: PhysPage.start(page), length: block * PAGE_SIZE, ...(provider && { provider }) });
    left -= block;
  }
  return vecs;
}

/** Gives them back, each as it was given or in parts. */
export function freeBlocks(allocator: PageAllocator, vecs: readonly StorageVec[]): void {
  for (const { phys, length } of vecs) allocator.freePages(PhysPage.of(PhysAddr(phys)), length / PAGE_SIZE);
}
