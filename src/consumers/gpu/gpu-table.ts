/**
 * The page table of one address space of a GPU: entries are set, rewritten and taken away, and the GPU's TLB is told.
 *
 * Idea: a GPU's table is a page table like any other, and its MMU a unit like any other; so this is a paging domain in which an entry leads to
 * the bus, to the GPU's own memory or over its interconnect (layouts/gpu). An entry that is right already is not touched.
 * Promises: when {@link GpuTable.zap} returns the GPU uses none of the pages; a larger leaf that is cut keeps leading where it led for the
 * rest of its pages. Zapping cannot fail: where there is no memory to cut a leaf, all of the leaf goes, and its rest is asked for again.
 */
import { Counters, type IovaPage, PAGE_SIZE, type PhysPage } from "../../base/index.ts";
import { PagingDomain } from "../../iommu/index.ts";
import { gpuTable } from "../../layouts/gpu/index.ts";
import { READ, WRITE } from "../../layouts/pagetable/index.ts";
import type { Arena } from "../../pagetable/index.ts";
import { Gather } from "../../pagetable/index.ts";
import type { GpuAdapter } from "../../platform/index.ts";

/** Pages of a large leaf. */
const LARGE = 512;

/** What a table is made with. */
interface GpuTableOptions {
  readonly adapter: GpuAdapter;
  /** Number of the address space, 0 to 65535. */
  readonly space: number;
  /** Memory for tables. One of its own unless given. */
  readonly tableMemory?: Arena;
}

/** Entries of one address space of a GPU. Pages are of 4 KiB. */
export class GpuTable {
  /** Entries written and cleared; invalidations of the GPU's TLB. */
  readonly counters: Counters = new Counters();
  readonly #domain: PagingDomain;
  readonly #adapter: GpuAdapter;
  readonly #space: number;
  readonly #gather = new Gather();

  constructor({ adapter, space, tableMemory }: GpuTableOptions) {
    this.#adapter = adapter;
    this.#space = space;
    this.#domain = new PagingDomain({
      layout: gpuTable(),
      unit: adapter.mmu,
      domainId: space,
      counters: this.counters,
      ...(tableMemory && { tableMemory }),
    });
    adapter.mmu.attach(space, this.#domain.tables);
  }

  /** The page of the GPU that `page` leads to; -1 if none. */
  lookup(page: number): number {
    return this.#domain.lookup(page as IovaPage);
  }

  /** Pages of the leaf that holds `page`, and whether the GPU may write: for tests and reports. */
  entryAt(page: number): { readonly to: number; readonly leafPages: number; readonly writable: boolean } | undefined {
    const found = this.#domain.table.translate(page as IovaPage);
    return found && { to: found.phys, leafPages: found.leafPages, writable: (found.prot & WRITE) !== 0 };
  }

  /**
   * From `page` on `pages` pages lead to `targets`, one each, and may be written where `writable` says so; NaN: left as it is. Neighbours that
   * go on become one entry where sizes allow it. What leads there already is not written.
   *
   * @throws DmaError ERR_DMA_MAP (ENOMEM) for lack of table memory; what was written before stays, and is true
   */
  bind(page: number, targets: Float64Array, writable: Uint8Array): void {
    const count = targets.length;
    for (let i = 0; i < count; ) {
      if (!this.#differs(page + i, targets[i]!, writable[i]!)) {
        i++;
        continue;
      }
      const first = i;
      do i++;
      while (
        i < count &&
        targets[i] === targets[first]! + (i - first) &&
        writable[i] === writable[first] &&
        this.#differs(page + i, targets[i]!, writable[i]!)
      );
      this.#set(page + first, targets[first]!, i - first, writable[first] !== 0);
    }
  }

  /** The GPU uses pages [page, + pages) no more when this returns. Invalidates its TLB once if there was anything. Entries cleared, in pages. */
  zap(page: number, pages: number): number {
    const cleared = this.#clear(page, pages);
    this.#domain.invalidate(this.#gather);
    return cleared;
  }

  /** As {@link GpuTable.zap} for several ranges, with one invalidation from the first to the last. */
  zapAll(ranges: readonly { readonly page: number; readonly pages: number }[]): number {
    let cleared = 0;
    for (const { page, pages } of ranges) cleared += this.#clear(page, pages);
    this.#domain.invalidate(this.#gather);
    return cleared;
  }

  /** The address space ends. */
  destroy(): void {
    this.#adapter.setFaulting(this.#space, false);
    this.#adapter.mmu.detach(this.#space);
    this.#domain.destroy();
  }

  #differs(page: number, target: number, writable: number): boolean {
    if (Number.isNaN(target)) return false;
    if (this.lookup(page) !== target) return true;
    return writable !== 0 && this.entryAt(page)!.writable === false;
  }

  #set(page: number, target: number, pages: number, writable: boolean): void {
    let isSet = false;
    for (let i = 0; i < pages && !isSet; i++) isSet = this.lookup(page + i) >= 0;
    if (isSet) this.zap(page, pages);
    this.#domain.map(page as IovaPage, target as PhysPage, pages, writable ? READ | WRITE : READ);
    this.#domain.sync(page as IovaPage, pages);
  }

  /** No larger leaf lies across the border before `page` any more. Its parts lead where it led, so that one invalidation is enough for all. */
  #cut(page: number): boolean {
    if (page % LARGE === 0 || this.lookup(page) < 0) return true;
    const { table } = this.#domain;
    const leaf = table.translate(page as IovaPage)!;
    return leaf.leafStart === page || table.split(page as IovaPage, 1, this.#gather) === 0;
  }

  #clear(page: number, pages: number): number {
    const domain = this.#domain;
    let at = this.#cut(page) ? page : page - (page % LARGE);
    const end = this.#cut(page + pages) ? page + pages : Math.ceil((page + pages) / LARGE) * LARGE;
    let cleared = 0;
    while (at < end) {
      if (domain.lookup(at as IovaPage) < 0) at++;
      else {
        const done = domain.unmapLater(at as IovaPage, end - at, this.#gather);
        cleared += done;
        at += Math.max(done, 1);
      }
    }
    return cleared;
  }
}

/** The page that a DMA address lies in, as the GPU's tables count the bus. */
export const busPage = (address: number): number => Math.floor(address / PAGE_SIZE);
