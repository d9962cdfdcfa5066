/**
 * Pages of the system mapped for a moment, so that a GPU's copy engine moves them: by two steps, packed, with one sync and one invalidation; page
 * by page where there is no address space.
 *
 * Promises: nothing is mapped when this returns. Specified by: behaviour of Linux 7.2 drm_pagemap_migrate_map_system_pages.
 */
import { type DmaAddr, PAGE_SIZE, PhysPage } from "../../base/index.ts";
import type { Direction, Dma } from "../../dma/index.ts";
import { copyRefused } from "./errors.ts";

/** A page of the system and its page of the GPU's memory. */
export interface PagePair {
  readonly system: number;
  readonly local: number;
}

/** Moves `pages` pages between the bus, from `address` on, and the GPU's memory, from page `local` on; false: refused. */
type MovePages = (address: DmaAddr, local: number, pages: number) => boolean;

/** @throws DmaError ERR_DMA_GPU_COPY (EIO), and as the mapping; nothing is promised of the contents then */
export function copyOverBus(dma: Dma, pairs: readonly PagePair[], direction: Direction, move: MovePages): void {
  if (pairs.length === 0) return;
  const range = dma.tryReserveIova({ length: pairs.length * PAGE_SIZE });
  if (!range) {
    for (const { system, local } of pairs) {
      const phys = PhysPage.start(system as PhysPage);
      const address = dma.mapPhys(phys, PAGE_SIZE, direction);
      const isDone = move(address, local, 1);
      dma.unmapPhys(address, PAGE_SIZE, direction);
      if (!isDone) throw copyRefused(dma.device.name);
    }
    return;
  }
  try {
    for (let i = 0; i < pairs.length; ) {
      const run = runOf(pairs, i, "system");
      range.link(i * PAGE_SIZE, PhysPage.start(pairs[i]!.system as PhysPage), run * PAGE_SIZE, direction);
      i += run;
    }
    range.sync();
    for (let i = 0; i < pairs.length; ) {
      const run = runOf(pairs, i, "local");
      if (!move((range.address + i * PAGE_SIZE) as DmaAddr, pairs[i]!.local, run)) throw copyRefused(dma.device.name);
      i += run;
    }
  } finally {
    range.destroy();
  }
}

/** Neighbours from `first` on. */
function runOf(pairs: readonly PagePair[], first: number, side: keyof PagePair): number {
  let i = first + 1;
  while (i < pairs.length && pairs[i]![side] === pairs[first]![side] + (i - first)) i++;
  return i - first;
}
