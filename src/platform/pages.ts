/** Whole pages of RAM, from whoever owns them: for coherent memory, bounce pools and tables of devices. */
import type { PhysPage } from "../base/index.ts";

/** Pages of RAM, in physically contiguous runs. */
export interface PageAllocator {
  /** `pages` adjacent pages, zeroed, none above `lastPage`; undefined if there are none. */
  allocatePages(pages: number, lastPage?: number): PhysPage | undefined;
  /** Gives back pages that were allocated together. Nobody may reach them any more. Cannot fail. */
  freePages(page: PhysPage, pages: number): void;
}
