/**
 * What the bookkeeping of a migration buffer costs, by arithmetic: the same numbers that `DataBuffer` counts.
 *
 * A buffer of n pages that lie in r runs is kept as a scatter table (one entry per run), as a list of pages (8 bytes each) or as
 * runs (16 bytes each); over two steps it has one range of addresses, whose state takes 16 bytes, and perhaps a table of the
 * addresses that the device was given, 8 bytes a page. Entries of the IOMMU are the same in every form, and are not counted here.
 * Specified by: docs/live-migration.md, "What a buffer costs".
 */
import { scatterTableBytes } from "./scatter-table.ts";

/** Bytes of a page number, and of an address in a device's list. */
export const PAGE_ENTRY_BYTES = 8;
/** Bytes of a run: page and number of pages. */
export const RUN_BYTES = 16;
/** Bytes of the state of an IOVA range. */
export const RANGE_STATE_BYTES = 16;

/** How a buffer remembers its pages. */
export type BufferForm =
  /** One entry per run, input and output in one structure; mapped as a scatterlist. */
  | "scatterlist"
  /** One number per page; mapped in two steps. Linux 7.2's. */
  | "page-list"
  /** One entry per run; mapped in two steps. */
  | "runs";

/** How large a buffer is, and in how many pieces it lies. */
export interface BufferShape {
  /** Of 4 KiB. */
  readonly pages: number;
  /** Physically contiguous pieces. */
  readonly runs: number;
}

/** What is kept besides the pages. */
export interface CostOptions {
  /** The addresses given to the device are kept as long as the buffer. Linux 7.2 does. */
  readonly keepsAddresses?: boolean;
  /** There is no address space: each page is mapped by itself, and its address is kept to unmap it. */
  readonly isEachPage?: boolean;
}

/** Bytes that a buffer's bookkeeping takes, without the state of its range. */
export function bookkeepingBytes(form: BufferForm, { pages, runs }: BufferShape, options: CostOptions = {}): number {
  if (form === "scatterlist") return scatterTableBytes(runs);
  const addresses = options.keepsAddresses || options.isEachPage ? PAGE_ENTRY_BYTES * pages : 0;
  return addresses + (form === "page-list" ? PAGE_ENTRY_BYTES * pages : RUN_BYTES * runs);
}

/** Bytes that Linux 7.2's form saves against a scatter table, for `pages` of which no two lie together. May be negative. */
export const savedByPageList = (pages: number): number =>
  scatterTableBytes(pages) -
  bookkeepingBytes("page-list", { pages, runs: pages }, { keepsAddresses: true }) -
  RANGE_STATE_BYTES;
