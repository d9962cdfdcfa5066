/** Errors of page tables. Map, unmap and their kin answer with a negative errno instead: they are too frequent. */
import { DmaError, hex } from "../base/index.ts";

export const badArena = (basePage: number, capacityFrames: number): DmaError =>
  new DmaError(
    "ERR_DMA_TABLE_ARENA",
    "EINVAL",
    `a table arena of ${capacityFrames} frames at page ${hex(basePage)}: give 1 to 524288 frames, and a first page that is a multiple of 16`,
    { basePage, capacityFrames },
  );

export const noRootTable = (frames: number, framesInUse: number): DmaError =>
  new DmaError(
    "ERR_DMA_TABLE_MEMORY",
    "ENOMEM",
    `no room for a top table of ${frames} frames (${framesInUse} in use): make the arena larger`,
    { frames, framesInUse },
  );

export const arenaTooHigh = (name: string, lastPage: number, reachable: number): DmaError =>
  new DmaError(
    "ERR_DMA_TABLE_ARENA",
    "ERANGE",
    `tables of ${name} up to page ${hex(lastPage)}: their entries can point to page ${hex(reachable)} at most, so place the arena below that`,
    { lastPage, reachable },
  );
