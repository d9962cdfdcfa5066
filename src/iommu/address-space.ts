/**
 * A device's address space, as the DMA layer drives it: what {@link IommuDomain} does with page tables of its own, and a
 * host does through its kernel.
 *
 * Idea: reserve addresses, map memory at them, make it visible, unmap, give the addresses back: in that order, whoever
 * keeps the tables. Pages are of 4 KiB, whole granules at a time.
 * Promises: a failed map leaves nothing behind; when `unmapNow` returns, the device cannot reach the pages.
 * Not for: what only a stack with its own tables has (attachment, table memory): that is {@link IommuDomain}'s.
 */
import type { Counters, IovaPage, PhysPage } from "../base/index.ts";
import type { IovaDevice } from "../iova/index.ts";
import type { Gather, LeafCursor } from "../pagetable/index.ts";

/** Where the translations are: an own page table, or what is known of somebody else's. */
export interface AddressTable {
  readonly layout: { readonly outputBits: number };
  /** The physical page that `page` reaches; -1 if none. */
  lookup(page: IovaPage): PhysPage | -1;
  /**
   * The short way for one page: one store into the leaf table of the cursor. False if that is not possible, and always where
   * the tables are not ours; nothing is changed then.
   */
  mapPage(page: number, frame: number, prot: number, cursor: LeafCursor): boolean;
  /** The same for `count` pages of `frames` from number `from` on, at consecutive addresses. How many were mapped. */
  mapPages(page: number, frames: Float64Array, from: number, count: number, prot: number, cursor: LeafCursor): number;
  /** 0, or a negative errno: nothing is mapped then. Tables that are not ours always refuse: go by the address space. */
  map(page: IovaPage, phys: PhysPage, pages: number, prot: number, cursor?: LeafCursor): number;
}

/** For the meaning of each see {@link IommuDomain}, which has the same. */
export interface AddressSpace {
  readonly counters: Counters;
  readonly mode: "strict" | "lazy";
  readonly granule: number;
  readonly table: AddressTable;
  reserve(pages: number, limitPage: number, device: IovaDevice): IovaPage;
  /** With a cursor the caller promises to {@link sync}: until then nothing needs to be mapped. @throws DmaError */
  map(page: IovaPage, phys: PhysPage, pages: number, prot: number, cursor?: LeafCursor): void;
  /** As `count` calls of {@link map}, all or nothing. The pages mapped. */
  mapRuns(
    page: IovaPage,
    physPages: Float64Array,
    pages: Int32Array,
    count: number,
    prot: number,
    cursor?: LeafCursor,
  ): number;
  /** @throws DmaError only where maps wait for it: those of the range are undone then */
  sync(page: IovaPage, pages: number): void;
  lookup(page: IovaPage): PhysPage | -1;
  isolate(page: IovaPage, pages: number): void;
  unmapNow(page: IovaPage, pages: number): number;
  unmapLater(page: IovaPage, pages: number, gather: Gather): number;
  invalidate(gather: Gather): void;
  release(page: IovaPage, mapped: number, reserved: number): number;
  releaseSparse(first: IovaPage, span: number, page: IovaPage, reserved: number): number;
}
