/**
 * The links of a range: where it lies in the address space, and what of it is linked.
 *
 * Idea: one page goes the shortest way, straight into the leaf table of the page before it; everything else goes through
 * the domain, which says what is wrong. The smallest span that holds everything linked is kept; if all of it is linked, the
 * end of the range clears it in one pass.
 * Promises: a failed map leaves nothing of itself; only {@link Links.note} and the calls that clear change what is linked.
 * Not for: deciding who may link what, or how; that is {@link IovaRange}'s and {@link OwnershipLinks}'.
 */
import { type Iova, type IovaPage, PAGE_SIZE, type PhysPage } from "../../base/index.ts";
import type { AddressSpace, LinkCursor } from "../../iommu/index.ts";
import { linkMisplaced, outsideRange, physTooWide, rangeReleased } from "../errors.ts";
import type { Granules } from "../path/granules.ts";

/** A constant of this file's own folds into the code: see PAGE_SIZE. */
const PAGE = PAGE_SIZE;

export class Links {
  /** First address; the caller's offsets count from here. */
  address: Iova = 0 as Iova;
  /** Bytes that may be linked. */
  length = 0;
  /** Reserved, from `page` on. */
  page: IovaPage = 0 as IovaPage;
  pages = 0;
  released = false;
  /** Pages [#first, #end) of the range hold everything linked; all but `#holes` of them are. */
  #first = 0;
  #end = 0;
  #holes = 0;
  /** A leaf may cover more than a granule: a part of it can be unlinked only when it has been split. */
  #mayBeLarge = false;
  readonly #granules: Granules;
  readonly #domain: AddressSpace;
  readonly #cursor: LinkCursor;

  constructor(granules: Granules) {
    this.#granules = granules;
    this.#domain = granules.domain;
    this.#cursor = granules.domain.openLinks();
  }

  /** A range begins, in which nothing is linked. */
  open(page: IovaPage, pages: number, inside: number, length: number): void {
    this.page = page;
    this.pages = pages;
    this.address = (page * PAGE + inside) as Iova;
    this.length = length;
    this.released = false;
    this.#forget();
    this.#mayBeLarge = false;
  }

  /** Pages that are linked. */
  get count(): number {
    return this.#end - this.#first - this.#holes;
  }

  /** Bytes from the first address to the end of the last page of the span. */
  get end(): number {
    return (this.page + this.#end) * PAGE - this.address;
  }

  /** @throws DmaError ERR_DMA_RELEASED, ERR_DMA_LINK_RANGE (EINVAL) */
  check(what: string, offset: number, length: number, least: 0 | 1 = 1): void {
    if (this.released) throw rangeReleased(what);
    const within = length >= least && offset >= 0 && offset + length <= this.length;
    if (!(within && Number.isInteger(offset) && Number.isInteger(length)))
      throw outsideRange(what, offset, length, this.length);
  }

  /** The first page of the granule that `offset` lies in. */
  pageAt(offset: number): IovaPage {
    return this.#granules.pageOf(this.address + offset);
  }

  /** Pages of the granules that [offset, + length) touches. */
  pagesAt(offset: number, length: number): number {
    return this.#granules.pages(this.#granules.inside(this.address + offset) + length);
  }

  /** Links page `index` of the range the short way; false, and nothing has happened, if it has to go the long one. */
  linkPage(index: number, frame: number, prot: number): boolean {
    if (!this.#cursor.mapPage(this.page + index, frame, prot)) return false;
    if (index === this.#end) this.#end = index + 1;
    else this.#widen(index, 1);
    return true;
  }

  /** Links single pages, the first `count` of `frames`, from page `index` of the range on; how many went that way. */
  linkPages(index: number, frames: Int32Array, count: number, prot: number): number {
    const done = this.#cursor.mapPages(this.page + index, frames, count, prot);
    if (done > 0) this.note(index, done);
    return done;
  }

  /** Links runs of pages from page `first` of the address space on, all or nothing. @throws DmaError as {@link AddressSpace.map} */
  linkRuns(first: IovaPage, physPages: Float64Array, pages: Int32Array, count: number, prot: number): void {
    this.note(first - this.page, this.#cursor.mapRuns(first, physPages, pages, count, prot));
  }

  /**
   * Maps the granules that hold [phys, + length) at the granule of `address`; {@link note} is the caller's. `pad` is where in
   * its granule the caller's memory starts.
   */
  map(address: number, phys: number, length: number, prot: number, pad: number = this.#granules.inside(phys)): void {
    const { granule, perGranule } = this.#granules;
    const inside = address - Math.floor(address * perGranule) * granule;
    if (phys - Math.floor(phys * perGranule) * granule !== inside) {
      this.announceRefusal(address, phys, pad, prot);
      const { outputBits } = this.#domain;
      if (phys + length > 2 ** outputBits) throw physTooWide(phys, outputBits);
      throw linkMisplaced(address - this.address, phys, address);
    }
    const frame = ((phys - inside) / PAGE) as PhysPage;
    this.#cursor.map(this.#granules.pageOf(address), frame, this.#granules.pages(inside + length), prot);
  }

  /** What the kernel's events say of a link that its page table refuses. */
  announceRefusal(address: number, phys: number, pad: number, prot: number): void {
    const { observer } = this.#granules.device;
    observer?.mapped?.(address - pad, phys - pad, 0, prot);
    observer?.unmapped?.(address - pad, 0, 0);
  }

  /** `pages` from page `index` of the range on are linked. */
  note(index: number, pages: number): void {
    this.#widen(index, pages);
    if (pages > this.#granules.granulePages) this.#mayBeLarge = true;
  }

  /** True if all of the pages are linked. A walk of the table for each. */
  isLinked(first: IovaPage, pages: number): boolean {
    const step = this.#granules.granulePages;
    for (let page = 0; page < pages; page += step)
      if (this.#domain.lookup((first + page) as IovaPage) < 0) return false;
    return true;
  }

  /** True if the first `pages` of the range are linked, and nothing else. */
  isExactly(pages: number): boolean {
    if (pages !== this.count) return false;
    return pages === 0 || (this.#first === 0 && (this.#end === pages || this.isLinked(this.page, pages)));
  }

  /** An unchecked caller says what is linked: the first `pages`. */
  trustLength(pages: number): void {
    this.#forget();
    this.#end = pages;
  }

  /** No leaf reaches out of the pages any more, so that they can be cleared alone. @throws DmaError ERR_DMA_SPLIT (ENOMEM) */
  isolate(first: IovaPage, pages: number): void {
    if (this.#mayBeLarge) this.#domain.isolate(first, pages);
  }

  /** Unlinks, and invalidates before it returns. */
  clear(first: IovaPage, pages: number): void {
    this.#cleared(this.#domain.unmapNow(first, pages));
  }

  /** Unlinks; the IOTLB is told by {@link flush}. */
  clearLater(first: IovaPage, pages: number): void {
    this.#cleared(this.#cursor.unmapLater(first, pages));
  }

  /** Tells the IOTLB what was unlinked by {@link clearLater}. False if it had been told of everything. */
  flush(): boolean {
    return this.#cursor.flush();
  }

  /** The end: unlinks everything and gives `reserved` pages back; `now` if the IOTLB must forget in lazy mode too. */
  release(reserved: number, now: boolean): void {
    const span = this.#end - this.#first;
    if (this.count === 0) this.#domain.release(this.page, 0, reserved);
    else if (this.#first !== 0 || this.#holes !== 0)
      this.#domain.releaseSparse((this.page + this.#first) as IovaPage, span, this.page, reserved);
    else {
      if (now) this.#domain.unmapNow(this.page, span);
      this.#domain.release(this.page, now ? 0 : span, reserved);
    }
    this.#forget();
  }

  /** The span takes in `pages` from page `index` on, which were not linked. */
  #widen(index: number, pages: number): void {
    if (this.count === 0) this.#first = this.#end = index;
    const first = Math.min(this.#first, index);
    const end = Math.max(this.#end, index + pages);
    this.#holes += end - first - (this.#end - this.#first) - pages;
    this.#first = first;
    this.#end = end;
  }

  #cleared(pages: number): void {
    this.#holes += pages;
    if (this.count === 0) this.#forget();
  }

  #forget(): void {
    this.#first = 0;
    this.#end = 0;
    this.#holes = 0;
  }
}
