/**
 * Blocks: naturally aligned powers of two of pages, the only ranges that most invalidations can name.
 *
 * Idea: an *order* is the binary logarithm of a number of 4 KiB pages, 0 to 52; a block of order n starts at a multiple of
 * 2^n pages; order 52 is everything. Two units encode a block in one page number, as PCIe's address translation
 * services do: the bits below its highest free bit are ones, and a size flag beside the address says so.
 * Promises: exact for all 2^52 pages, without bigints and without allocation. The block that covers a range is the
 * smallest one; it may be far larger than the range (two pages that straddle a large boundary).
 * Specified by: behaviour of Linux 7.2 (drivers/iommu/intel/cache.c, drivers/iommu/amd/iommu.c); PCIe 6.0, 10.3.1.
 */
import type { IovaPage } from "../../base/index.ts";
import { badRange, misalignedBlock } from "./errors.ts";

/** The order of everything, and the page after the last. */
export const EVERYTHING = 52;
export const END_OF_PAGES: IovaPage = (2 ** EVERYTHING) as IovaPage;

const TWO_32 = 2 ** 32;

/** Pages in a block. `order` is 0 to 52. */
export const blockPages = (order: number): number => (order < 31 ? 1 << order : 2 ** order);

/** The start of the block of this order that `page` lies in. */
export function blockStart(page: IovaPage, order: number): IovaPage {
  const pages = blockPages(order);
  return (Math.floor(page / pages) * pages) as IovaPage;
}

/**
 * The order of the smallest block that covers pages [start, end): 0 to 52.
 * @throws DmaError ERR_DMA_INVALIDATION_RANGE (EINVAL): the range is empty or beyond 64 bits
 */
export function coveringOrder(start: IovaPage, end: IovaPage): number {
  if (!(start >= 0 && start < end && end <= END_OF_PAGES)) throw badRange(start, end);
  const last = end - 1;
  const high = Math.floor(start / TWO_32) ^ Math.floor(last / TWO_32);
  return high === 0 ? 32 - Math.clz32(start ^ last) : 64 - Math.clz32(high);
}

/** The number of zero bits below the lowest one; 52 for 0. `value` is at most 2^52. */
export function trailingZeros(value: number): number {
  const low = value | 0;
  if (low !== 0) return 31 - Math.clz32(low & -low);
  const high = Math.floor(value / TWO_32);
  return high === 0 ? EVERYTHING : 63 - Math.clz32(high & -high);
}

/**
 * The order of the largest block that starts at `start` and ends within [start, end).
 *
 * Stepping by it splits a range exactly, into few blocks, instead of widening it: worth it where an invalidation
 * of pages that are still mapped costs more than a command.
 * @throws DmaError ERR_DMA_INVALIDATION_RANGE (EINVAL): the range is empty or beyond 64 bits
 */
export function pieceOrder(start: IovaPage, end: IovaPage): number {
  if (!(start >= 0 && start < end && end <= END_OF_PAGES)) throw badRange(start, end);
  const pages = end - start;
  const high = Math.floor(pages / TWO_32);
  const fits = high === 0 ? 31 - Math.clz32(pages) : 63 - Math.clz32(high);
  return Math.min(trailingZeros(start), fits);
}

/**
 * The page number that encodes a block of this order; for order 0 it is the page itself, to be sent without size flag.
 * @throws DmaError ERR_DMA_INVALIDATION_ALIGNMENT (EINVAL): no block of this order starts there
 */
export function encodeBlock(start: IovaPage, order: number): IovaPage {
  if (blockStart(start, order) !== start) throw misalignedBlock(start, order);
  return order === 0 ? start : ((start + blockPages(order - 1) - 1) as IovaPage);
}

/** The order that a page number with size flag encodes: 1 to 52. All ones, which says nothing, is everything. */
export const encodedOrder = (page: IovaPage): number => Math.min(trailingZeros(page + 1) + 1, EVERYTHING);

/** The first page of the block that a page number with size flag encodes. */
export const encodedStart = (page: IovaPage): IovaPage => blockStart(page, encodedOrder(page));
