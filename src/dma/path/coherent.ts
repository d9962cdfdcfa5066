/**
 * Memory that a device and the CPU share for long: descriptor rings, queues, mailboxes. No syncs are ever due.
 *
 * Behind an IOMMU the memory is a few blocks of pages, each as large as could be had, and one range of addresses; without
 * one it is one physical block. Memory for a device outside a confidential guest's trust is converted to shared; if it
 * cannot be converted back at the end it is leaked on purpose.
 * Specified by: behaviour of Linux 7.2 coherent allocation.
 */

import type { DmaAttributes } from "../../base/index.ts";
import { DmaAddr, IovaPage, PAGE_SIZE, type PhysAddr, PhysPage, pagesOf } from "../../base/index.ts";
import type { PageAllocator } from "../../platform/index.ts";
import type { DmaDevice } from "../device.ts";
import { machineLacks, noAddressSpace, noMemory, notReachable } from "../errors.ts";
import type { Terms } from "../terms.ts";
import type { Granules } from "./granules.ts";
import { permissions } from "./permissions.ts";

/** A run of pages of one allocation. */
export interface PageBlock {
  readonly page: PhysPage;
  readonly pages: number;
}

export interface Allocation {
  readonly address: DmaAddr;
  readonly blocks: readonly PageBlock[];
}

/** Largest block that is asked for: 4 MiB. */
const LARGEST_BLOCK = 1024;

/** Blocks for `length` bytes behind an IOMMU, mapped. */
export function allocateTranslated(
  granules: Granules,
  length: number,
  { direction, attributes }: Terms,
  mask: number,
): Allocation {
  const { device, domain } = granules;
  const allocator = pagesOfMachine(device);
  const pages = granules.pages(length);
  const blocks = takeBlocks(allocator, pages, attributes, Math.max(1, granules.granule / PAGE_SIZE));
  if (!blocks || !openTo(device, blocks)) throw noMemory(length, mask);
  const first = granules.reserve(pages, mask);
  if (first === 0) {
    freeBlocks(device, blocks);
    throw noAddressSpace(pages * PAGE_SIZE, device.reach(mask));
  }
  const prot = permissions(direction, attributes, device.coherent);
  let mapped = 0;
  try {
    for (const { page, pages: count } of blocks) {
      domain.map(IovaPage.add(first, mapped), page, count, prot);
      mapped += count;
    }
    domain.sync(first, pages);
  } catch (error) {
    if (mapped > 0) domain.unmapNow(first, mapped);
    domain.release(first, 0, pages);
    freeBlocks(device, blocks);
    throw error;
  }
  return { address: DmaAddr(first * PAGE_SIZE), blocks };
}

/** One block that the device can address. */
export function allocateDirect(device: DmaDevice, length: number, mask: number): Allocation {
  const allocator = pagesOfMachine(device);
  const pages = pagesOf(length);
  const reach = device.reach(mask) - device.busOffset;
  const page = allocator.allocatePages(pages, Math.floor((reach + 1) / PAGE_SIZE) - 1);
  if (page === undefined) throw noMemory(length, device.reach(mask));
  const phys = PhysPage.start(page);
  const blocks = [{ page, pages }];
  if (phys + length - 1 > reach) {
    allocator.freePages(page, pages);
    throw notReachable(device.name, phys, length, device.reach(mask));
  }
  if (!openTo(device, blocks)) throw noMemory(length, device.reach(mask));
  return { address: DmaAddr(phys + device.busOffset), blocks };
}

/**
 * For a device that does not look into the CPU's caches: the CPU reaches this memory past its caches from now on, so that
 * no sync is ever due.
 */
export function takeOutOfCaches(device: DmaDevice, blocks: readonly PageBlock[]): void {
  if (device.coherent) return;
  for (const { page, pages } of blocks) device.machine.caches?.bypass(page, pages);
}

/** Makes the pages shared, for a device outside a confidential guest's trust. False if one could not be: all are given up then. */
function openTo(device: DmaDevice, blocks: readonly PageBlock[]): boolean {
  const { encryption, pages } = device.machine;
  if (encryption === undefined || device.tdi !== "none") return true;
  const failed = blocks.findIndex((block) => !encryption.convert(block.page, block.pages, "shared"));
  if (failed < 0) return true;
  freeBlocks(device, blocks.slice(0, failed));
  // The one that failed is neither private nor shared now, and never used again.
  for (const block of blocks.slice(failed + 1)) pages?.freePages(block.page, block.pages);
  return false;
}

/** Gives the pages back. Cannot fail; what cannot be made private again is leaked. */
export function freeBlocks(device: DmaDevice, blocks: readonly PageBlock[]): void {
  const { pages, encryption } = device.machine;
  const opened = encryption !== undefined && device.tdi === "none";
  for (const { page, pages: count } of blocks)
    if (!opened || encryption.convert(page, count, "private")) pages?.freePages(page, count);
}

function pagesOfMachine(device: DmaDevice): PageAllocator {
  const { pages } = device.machine;
  if (!pages) throw machineLacks("pages", "an allocation");
  return pages;
}

/** The largest blocks that can be had, neighbours joined; undefined if there is not enough. */
function takeBlocks(
  allocator: PageAllocator,
  pages: number,
  attributes: DmaAttributes | undefined,
  least: number,
): PageBlock[] | undefined {
  const blocks: { page: PhysPage; pages: number }[] = [];
  if (attributes?.forceContiguous) {
    const page = takeAligned(allocator, pages, least);
    return page === undefined ? undefined : [{ page, pages }];
  }
  let largest = attributes?.allocSinglePages ? least : LARGEST_BLOCK;
  for (let left = pages; left > 0; ) {
    const order = Math.min(largest, 2 ** Math.floor(Math.log2(left)));
    const page = takeAligned(allocator, order, least);
    if (page === undefined) {
      if (order <= least) {
        giveBlocks(allocator, blocks);
        return undefined;
      }
      largest = order / 2;
      continue;
    }
    const last = blocks.at(-1);
    if (last && last.page + last.pages === page) last.pages += order;
    else blocks.push({ page, pages: order });
    left -= order;
  }
  return blocks;
}

/** Adjacent pages that start on a multiple of `align`: of an allocator that knows pages only, by taking more and trimming. */
function takeAligned(allocator: PageAllocator, pages: number, align: number): PhysPage | undefined {
  const page = allocator.allocatePages(pages);
  if (page === undefined || page % align === 0) return page;
  allocator.freePages(page, pages);
  const more = allocator.allocatePages(pages + align - 1);
  if (more === undefined) return undefined;
  const before = (align - (more % align)) % align;
  const first = PhysPage.add(more, before);
  if (before > 0) allocator.freePages(more, before);
  if (before < align - 1) allocator.freePages(PhysPage.add(first, pages), align - 1 - before);
  return first;
}

function giveBlocks(allocator: PageAllocator, blocks: readonly PageBlock[]): void {
  for (const { page, pages } of blocks) allocator.freePages(page, pages);
}

/** Where byte `offset` of an allocation lies, and how many bytes go on from there. */
export function placeOf(blocks: readonly PageBlock[], offset: number): { phys: PhysAddr; length: number } | undefined {
  let at = 0;
  for (const { page, pages } of blocks) {
    const length = pages * PAGE_SIZE;
    if (offset < at + length)
      return { phys: (page * PAGE_SIZE + offset - at) as PhysAddr, length: at + length - offset };
    at += length;
  }
  return undefined;
}
