/**
 * A device's address space, as the DMA layer drives it: what {@link DmaDomain} does with page tables of its own, and a host
 * does through its kernel.
 *
 * Idea: reserve addresses, map memory at them, make it visible, unmap, give the addresses back: in that order, whoever
 * keeps the tables. Pages are of 4 KiB, whole granules at a time. What an implementation remembers between the links of a
 * range stays behind {@link LinkCursor}, which it hands out itself.
 * Promises: a failed map leaves nothing behind; when `unmapNow` returns, the device cannot reach the pages.
 * Not for: what only a stack with its own tables has (attachment, table memory, dirty tracking): that is
 * {@link PagingDomain}'s.
 */
import type { Counters, IovaPage, PhysPage } from "../base/index.ts";
import type { IovaDevice } from "../iova/index.ts";

/**
 * Where the links of one range go, one after the other. Who links promises to sync: until then nothing needs to be mapped.
 * One at a time: a cursor serves one range, and the next one when that was given back.
 */
export interface LinkCursor {
  /**
   * Maps one page straight into the leaf table that the last link used. False, with nothing changed, if that cannot be
   * done; always so where a kernel or a device keeps the mappings.
   */
  mapPage(page: number, frame: number, prot: number): boolean;
  /** The same for the first `count` of `frames`, at consecutive addresses. How many were mapped, from the first on. */
  mapPages(page: number, frames: Int32Array, count: number, prot: number): number;
  /** @throws DmaError as {@link AddressSpace.map}; nothing is mapped then */
  map(page: IovaPage, phys: PhysPage, pages: number, prot: number): void;
  /** As `count` calls of `map`, `physPages[i]` for `pages[i]` pages, all or nothing. The pages mapped. @throws DmaError */
  mapRuns(page: IovaPage, physPages: Float64Array, pages: Int32Array, count: number, prot: number): number;
  /** Unmaps; the IOTLB is told by {@link flush}, or at once where it cannot be told later. Pages unmapped. */
  unmapLater(page: IovaPage, pages: number): number;
  /** From here on the device cannot reach what {@link unmapLater} unmapped. False if the IOTLB had been told of everything. */
  flush(): boolean;
}

/** Addresses of a device, and what they reach. */
export interface AddressSpace {
  /** What the work in it cost. */
  readonly counters: Counters;
  /** `strict`: what was released cannot be reached any more. `lazy`: after the next flush. */
  readonly mode: "strict" | "lazy";
  /** Bytes of the smallest thing that can be mapped. */
  readonly granule: number;
  /** Bits of a physical address that can be mapped. */
  readonly outputBits: number;
  /** Reserves `pages`, whole granules, below `limitPage`; 0 if there is no room. */
  reserve(pages: number, limitPage: number, device: IovaDevice): IovaPage;
  /** A cursor for the links of one range. */
  openLinks(): LinkCursor;
  /** Good after a {@link sync}. @throws DmaError ERR_DMA_MAP and what the host says; nothing is mapped then */
  map(page: IovaPage, phys: PhysPage, pages: number, prot: number): void;
  /** @throws DmaError only where maps wait for it, or for its answer: those of the range are undone then */
  sync(page: IovaPage, pages: number): void;
  /** The physical page that `page` reaches; -1 if none. */
  lookup(page: IovaPage): PhysPage | -1;
  /** So that [`page`, + `pages`) can be unmapped alone. @throws DmaError ERR_DMA_SPLIT; all translations are as before */
  isolate(page: IovaPage, pages: number): void;
  /** Unmaps, and the device cannot reach the pages any more when this returns. Pages unmapped. */
  unmapNow(page: IovaPage, pages: number): number;
  /** Unmaps the first `mapped` pages and gives `reserved` back when it is safe. Pages unmapped. Cannot fail. */
  release(page: IovaPage, mapped: number, reserved: number): number;
  /** The same where not everything of [`first`, + `span`) is mapped. */
  releaseSparse(first: IovaPage, span: number, page: IovaPage, reserved: number): number;
}
