/**
 * An IOVA range: the two-step mapping. Reserve address space once; link, sync and unlink memory in it; give it back.
 *
 * Idea: the caller decides the layout of the range, so input (physical runs) and output (one address) never share a
 * structure, and one invalidation ends it all. Promises: what was never linked is never reachable; a failed link leaves
 * nothing of itself; release cannot fail, and a second release does nothing.
 * Checked: a link past the end or over something, an unlink of a hole, use after release. Not checked here: that the
 * device waits for {@link IovaRange.sync}.
 * Specified by: behaviour of Linux 7.2 two-step DMA API.
 */
import { type Iova, IovaPage, PAGE_SIZE, type PhysAddr, type PhysPage, pageOffset, pagesOf } from "../base/index.ts";
import type { IommuDomain } from "../iommu/index.ts";
import { LeafCursor } from "../pagetable/index.ts";
import {
  badAddress,
  badDirection,
  linkMisplaced,
  linkPastEnd,
  linkUnaligned,
  rangeReleased,
  unlinkHole,
} from "./errors.ts";
import { permissions } from "./permissions.ts";
import type { Direction, DmaAttributes, PhysVec } from "./vectors.ts";

export class IovaRange implements Disposable {
  /** First address; the caller's offsets count from here. */
  declare readonly address: Iova; // "declare": a defined field holds undefined first, and is slower ever after
  /** Bytes asked for. */
  declare readonly length: number;
  readonly #domain: IommuDomain;
  readonly #page: IovaPage = 0 as IovaPage;
  readonly #pages: number = 0;
  /** Pages [#first, #end) of the range hold everything linked; #linked of them are. */
  #first = NONE;
  #end = 0;
  #linked = 0;
  #released = false;
  /** The leaf table of the last link: the next one rarely needs another. */
  readonly #cursor = new LeafCursor();

  /** Made by {@link Dma.tryReserveIova}. */
  constructor(domain: IommuDomain, page: IovaPage, pages: number, address: Iova, length: number) {
    this.#domain = domain;
    this.#page = page;
    this.#pages = pages;
    this.address = address;
    this.length = length;
  }

  /**
   * Makes `length` bytes at `offset` of the range reach physical memory from `phys` on. Only the first piece may start
   * inside a page, only the last may end inside one. Not promised to the device before {@link sync}.
   *
   * Cost: one entry a page (fewer with larger leaves), no invalidation.
   * @throws DmaError ERR_DMA_LINK_RANGE, ERR_DMA_ADDRESS, ERR_DMA_DIRECTION (EINVAL), ERR_DMA_LINK_ALIGNMENT (EIO, ENXIO), ERR_DMA_MAP (EADDRINUSE, ERANGE,
   * ENOMEM), ERR_DMA_RELEASED (EINVAL)
   */
  link(offset: number, phys: PhysAddr, length: number, direction: Direction, attributes?: DmaAttributes): void {
    if (this.#released) throw rangeReleased("link");
    if (!(length > 0 && offset >= 0 && offset + length <= this.length)) throw linkPastEnd(offset, length, this.length);
    if (!(phys >= 0)) throw badAddress(phys);
    const framePage = Math.floor(phys / PAGE_SIZE);
    const inside = phys - framePage * PAGE_SIZE;
    if (offset > 0 && inside !== 0) throw linkUnaligned(offset, phys);
    const address = this.address + offset;
    const page = Math.floor(address / PAGE_SIZE);
    if (address - page * PAGE_SIZE !== inside) throw linkMisplaced(offset, phys, address);
    const pages = Math.ceil((inside + length) / PAGE_SIZE);
    const prot = permissions(direction, attributes);
    if (prot === 0) throw badDirection(direction);
    this.#domain.map(page as IovaPage, framePage as PhysPage, pages, prot, this.#cursor);
    this.#note(page - this.#page, pages);
  }

  /**
   * Links `vecs` one after the other from `offset` on: the same as one {@link link} each, in one call. All or nothing.
   *
   * @throws as {@link link}
   */
  linkVecs(offset: number, vecs: readonly PhysVec[], direction: Direction, attributes?: DmaAttributes): void {
    if (this.#released) throw rangeReleased("link");
    const runs = RUNS;
    runs.clear();
    let at = offset;
    for (let i = 0; i < vecs.length; i++) {
      const { phys, length } = vecs[i]!;
      if (!(length > 0 && at >= 0 && at + length <= this.length)) throw linkPastEnd(at, length, this.length);
      if (!(phys >= 0)) throw badAddress(phys);
      const framePage = Math.floor(phys / PAGE_SIZE);
      const inside = phys - framePage * PAGE_SIZE;
      if (at > 0 && inside !== 0) throw linkUnaligned(at, phys);
      if (pageOffset(this.address + at) !== inside) throw linkMisplaced(at, phys, this.address + at);
      runs.add(framePage, Math.ceil((inside + length) / PAGE_SIZE));
      at += length;
    }
    if (runs.count === 0) return;
    const first = IovaPage.of((this.address + offset) as Iova);
    const prot = permissions(direction, attributes);
    if (prot === 0) throw badDirection(direction);
    const pages = this.#domain.mapRuns(first, runs.physPages, runs.pages, runs.count, prot, this.#cursor);
    this.#note(first - this.#page, pages);
  }

  /** What was linked in [offset, offset + length) is promised from here on: the device may look. All, unless said. */
  sync(offset = 0, length: number = this.length - offset): void {
    if (this.#released) throw rangeReleased("sync");
    const first = IovaPage.of((this.address + offset) as Iova);
    const end = pagesOf(this.address + offset + length);
    this.#domain.sync(first, end - first);
  }

  /**
   * Takes [offset, offset + length) away from the device, now, in lazy mode too; the addresses stay reserved.
   *
   * @throws DmaError ERR_DMA_UNLINK_HOLE (EINVAL) if not all of it was linked: what was linked up to there is unlinked
   */
  unlink(offset: number, length: number): void {
    if (this.#released) throw rangeReleased("unlink");
    if (!(length > 0 && offset >= 0 && offset + length <= this.length)) throw linkPastEnd(offset, length, this.length);
    const first = IovaPage.of((this.address + offset) as Iova);
    const pages = pagesOf(this.address + offset + length) - first;
    for (let page = 0; page < pages; page++)
      if (this.#domain.table.lookup(IovaPage.add(first, page)) < 0) throw unlinkHole(offset, length);
    this.#linked -= this.#domain.unmapNow(first, pages);
    if (this.#linked === 0) {
      this.#first = NONE;
      this.#end = 0;
    }
  }

  /** Unlinks everything and gives the range back: one invalidation, or one entry of the flush queue. Cannot fail. */
  destroy(): void {
    if (this.#released) return;
    this.#released = true;
    const span = this.#end - this.#first;
    if (this.#linked === 0) this.#domain.release(this.#page, 0, this.#pages);
    else if (this.#first === 0 && span === this.#linked) this.#domain.release(this.#page, span, this.#pages);
    else this.#destroyScattered();
  }

  [Symbol.dispose](): void {
    this.destroy();
  }

  /** Holes between what was linked: run by run. */
  #destroyScattered(): void {
    for (let page = this.#first; page < this.#end; ) {
      const at = IovaPage.add(this.#page, page);
      if (this.#domain.table.lookup(at) < 0) page++;
      else page += this.#domain.unmapNow(at, this.#end - page);
    }
    this.#domain.release(this.#page, 0, this.#pages);
  }

  #note(first: number, pages: number): void {
    if (first < this.#first) this.#first = first;
    if (first + pages > this.#end) this.#end = first + pages;
    this.#linked += pages;
  }
}

/** Later than any page of a range. */
const NONE = 2 ** 30;

/** Runs of pages for one vector link, physically adjacent ones joined. Used up before the call returns. */
class PageRuns {
  physPages = new Float64Array(256);
  pages = new Int32Array(256);
  count = 0;

  clear(): void {
    this.count = 0;
  }

  add(physPage: number, pages: number): void {
    const last = this.count - 1;
    if (last >= 0 && this.physPages[last]! + this.pages[last]! === physPage) {
      this.pages[last]! += pages;
      return;
    }
    if (this.count === this.pages.length) this.#grow();
    this.physPages[this.count] = physPage;
    this.pages[this.count++] = pages;
  }

  #grow(): void {
    const [physPages, pages] = [this.physPages, this.pages];
    this.physPages = new Float64Array(this.count * 2);
    this.pages = new Int32Array(this.count * 2);
    this.physPages.set(physPages);
    this.pages.set(pages);
  }
}

const RUNS = new PageRuns();
