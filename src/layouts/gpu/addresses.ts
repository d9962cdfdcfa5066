/**
 * Where an entry of a GPU's page table leads: to the bus, to its own memory, or over an interconnect to another GPU's.
 *
 * Idea: one physical address space of the GPU, cut into windows, as GPUs with memory of their own have it: low addresses go out on the bus
 * as DMA addresses, one window is the local memory, and each peer on the interconnect has a window of its own. So an entry needs no
 * kind besides its address, and tables are those of x86-64.
 * Promises: the windows do not meet, and hold every address that a bus can have.
 * Specified by: this project; the shape follows GPUs whose tables are x86-64's with one place for local memory.
 */
import { type TableLayout, x86_64 } from "../pagetable/index.ts";

/** Bytes of local memory that a window can hold: 2^44. */
export const GPU_WINDOW_BYTES: number = 2 ** 44;
const PAGE = 4096;
const WINDOW_PAGES = GPU_WINDOW_BYTES / PAGE;
const LOCAL_PAGE = 2 ** 51 / PAGE;
const LINK_PAGE = 2 ** 50 / PAGE;

/** Places on one interconnect, at most. */
export const GPU_LINKS = 64;

/** The format of a GPU's own page tables: x86-64, four levels, leaves of 4 KiB and 2 MiB. */
export function gpuTable(): TableLayout {
  return x86_64({ levels: 4, leafSizes: [0, 9] });
}

/** The GPU's page for page `index` of its own memory. */
export const localPage = (index: number): number => LOCAL_PAGE + index;

/** The GPU's page for page `index` of the memory of the GPU at `link` on the interconnect. */
export const linkedPage = (link: number, index: number): number => LINK_PAGE + link * WINDOW_PAGES + index;

/** Where a page of the GPU is. */
export type GpuPlace =
  /** Page `index` (of 4 KiB) of the bus: a DMA address. */
  | { readonly at: "bus"; readonly index: number }
  /** Of its own memory. */
  | { readonly at: "local"; readonly index: number }
  /** Of the memory of the GPU at place `link` on the interconnect. */
  | { readonly at: "link"; readonly link: number; readonly index: number };

/** What `page`, as an entry holds it, stands for. */
export function gpuPlace(page: number): GpuPlace {
  if (page >= LOCAL_PAGE) return { at: "local", index: page - LOCAL_PAGE };
  if (page < LINK_PAGE) return { at: "bus", index: page };
  const link = Math.floor((page - LINK_PAGE) / WINDOW_PAGES);
  return { at: "link", link, index: page - LINK_PAGE - link * WINDOW_PAGES };
}
