/**
 * An IOVA range: the two-step mapping. Reserve address space once; link, sync and unlink memory in it; give it back.
 *
 * Idea: the caller decides the layout of the range, so input (physical runs) and output (one address) never share a
 * structure, and one invalidation ends it all. Promises: what was never linked is never reachable; a failed link leaves
 * nothing of itself; release cannot fail, and a second release does nothing. For a plain device (coherent, trusted)
 * everything is here; what other devices need besides is in `ownership-links.ts`. Checked, unless the device says
 * otherwise: a link past the end, an unlink of a hole, use after release. Not checked here: that the device waits for
 * {@link IovaRange.sync}.
 * Specified by: behaviour of Linux 7.2 two-step DMA API.
 */

import type { DmaAttributes } from "../../base/index.ts";
import { type Iova, type IovaPage, PAGE_SIZE, type PhysAddr } from "../../base/index.ts";
import { checkLength, checkLinkAddress, checkPiece, checkPieces, piecesOf } from "../checks.ts";
import { badDirection, destroyMismatch, linkUnaligned, outsideRange, sharedForbidden, unlinkHole } from "../errors.ts";
import type { Granules } from "../path/granules.ts";
import { permissions } from "../path/permissions.ts";
import { type Terms, termsOf } from "../terms.ts";
import type { Direction, PhysColumns, PhysVec } from "../vectors.ts";
import { linkVecs } from "./link-vecs.ts";
import { Links } from "./links.ts";
import { OwnershipLinks } from "./ownership-links.ts";
import { RangeEvents } from "./range-events.ts";

/** A constant of this file's own folds into the code: see PAGE_SIZE. */
const PAGE = PAGE_SIZE;

/**
 * Reserved I/O addresses: link memory into them, sync, unlink, and give them back. Offsets and lengths are bytes, and
 * count from {@link IovaRange.address}. Nothing is reachable before a link and its sync; {@link IovaRange.destroy}, or
 * leaving a `using` block, ends all of it with one invalidation. Made by {@link Dma.tryReserveIova}.
 */
export class IovaRange implements Disposable {
  readonly #granules: Granules;
  readonly #links: Links;
  readonly #refusesMisuse: boolean = true;
  /** Whole pages that may take the short way of {@link link}; 0 once the range was given back. */
  #simplePages = 0;
  #isSimple = false;
  /** What the last simple link allowed: the next one mostly allows the same. */
  #direction: Direction = "bidirectional";
  #prot: number = permissions("bidirectional");
  /** Bounces, cache maintenance, privacy: undefined for a plain device. */
  readonly #ownershipLinks: OwnershipLinks | undefined;
  /** undefined where nobody listens. */
  readonly #events: RangeEvents | undefined;

  /** Made by {@link Dma.tryReserveIova}. The first address lies `inside` bytes into `page`. */
  constructor(granules: Granules, page: IovaPage, pages: number, inside: number, length: number) {
    const { device, isPlain } = granules;
    this.#granules = granules;
    this.#links = new Links(granules);
    this.#refusesMisuse = device.refusesMisuse;
    this.#ownershipLinks = isPlain ? undefined : new OwnershipLinks(granules, this.#links);
    this.#events = device.observer && new RangeEvents(device, this);
    this.#open(page, pages, inside, length);
  }

  #open(page: IovaPage, pages: number, inside: number, length: number): void {
    this.#links.open(page, pages, inside, length);
    const isPlain = this.#ownershipLinks === undefined && this.#events === undefined;
    this.#isSimple = isPlain && this.#granules.granule === PAGE && inside === 0;
    this.#countSimple();
  }

  #countSimple(): void {
    this.#simplePages = this.#isSimple ? Math.floor(this.#links.length / PAGE) : 0;
  }

  /**
   * The object of a range that was given back serves for another one; false, and nothing happens, if it cannot: other
   * device, still in use, not plain. For {@link Dma.tryReserveIova}.
   */
  reuse(granules: Granules, page: IovaPage, pages: number, inside: number, length: number): boolean {
    if (granules !== this.#granules || !this.#links.released || this.#ownershipLinks !== undefined) return false;
    this.#events?.reset();
    this.#open(page, pages, inside, length);
    return true;
  }

  /** First address; the caller's offsets count from here. */
  get address(): Iova {
    return this.#links.address;
  }

  /** Bytes that may be linked. */
  get length(): number {
    return this.#links.length;
  }

  /** Bytes that {@link grow} can reach: what was reserved. */
  get capacity(): number {
    const { page, pages, address } = this.#links;
    return (page + pages) * PAGE - address;
  }

  /** Some of what is linked goes through bounce buffers. */
  get hasBounced(): boolean {
    return this.#ownershipLinks?.hasBounced ?? false;
  }

  /** What is linked is the memory itself, never a copy, and nobody listens: attributes about that change nothing. */
  get isPlain(): boolean {
    return this.#ownershipLinks === undefined && this.#events === undefined;
  }

  /** Pages that are linked now. */
  get linkedPages(): number {
    return this.#links.count;
  }

  /**
   * Makes `length` bytes at `offset` of the range reach physical memory from `phys` on. Only the first piece may start
   * inside a granule, only the last may end inside one. Not promised to the device before {@link sync}.
   *
   * Cost: one entry a page (fewer with larger leaves), no invalidation.
   * @throws DmaError ERR_DMA_LINK_RANGE, ERR_DMA_ADDRESS, ERR_DMA_DIRECTION, ERR_DMA_RELEASED (EINVAL),
   * ERR_DMA_LINK_ALIGNMENT (EIO, ENXIO), ERR_DMA_MAP (EADDRINUSE, ERANGE, ENOMEM), ERR_DMA_SHARED (EOPNOTSUPP); besides,
   * on devices that need care: ERR_DMA_SHARING (EINVAL: other links of the range are of the other kind), ERR_DMA_NOT_COHERENT (EOPNOTSUPP), ERR_DMA_BOUNCE_FORBIDDEN, ERR_DMA_PRIVATE (EPERM),
   * ERR_DMA_BOUNCE_FULL, ERR_DMA_BOUNCE_NONE (ENOMEM)
   */
  link(offset: number, phys: PhysAddr, length: number, direction: Direction, attributes?: DmaAttributes): void {
    // A whole page of a range that starts on one, on a device that needs no care: nearly all of them. What is odd in any way
    // takes the long way, which says what is wrong.
    if (length === PAGE && attributes === undefined && typeof phys === "number" && typeof offset === "number") {
      const index = (offset / PAGE) | 0; // small integers, not doubles; what is none fails the comparison
      const frame = (phys / PAGE) | 0;
      if (index * PAGE === offset && frame * PAGE === phys && index >= 0 && index < this.#simplePages) {
        if (direction !== this.#direction) {
          this.#direction = direction;
          this.#prot = permissions(direction);
        }
        if (this.#links.linkPage(index, frame, this.#prot)) return;
      }
    }
    this.#linkAny(offset, phys, length, termsOf(direction, attributes));
  }

  #linkAny(offset: number, phys: PhysAddr, length: number, terms: Terms): void {
    const { direction, attributes } = terms;
    const links = this.#links;
    if (typeof offset !== "number" || typeof length !== "number")
      throw outsideRange("link", offset, length, links.length);
    if (this.#refusesMisuse) links.check("link", offset, length);
    checkLinkAddress(phys);
    const { device, granule, perGranule } = this.#granules;
    if (offset > 0 && phys - Math.floor(phys * perGranule) * granule !== 0) throw linkUnaligned(offset, phys, granule);
    const prot = permissions(direction, attributes, device.coherent);
    if (prot === 0) {
      if (device.linuxCompatible) links.announceRefusal(links.address + offset, phys, this.#granules.inside(phys), 0);
      throw badDirection(direction);
    }
    if (attributes?.shared && device.sharedBit === 0 && !device.linuxCompatible) throw sharedForbidden(device.name);
    this.flush();
    this.#events?.linking(offset, length, phys, terms);
    try {
      this.#map(offset, phys, length, terms, prot);
    } catch (error) {
      this.#events?.linkFailed(offset, length, phys);
      throw error;
    }
  }

  /**
   * Links `pieces` one after the other from `offset` on: the same as one {@link link} each, in one call. All or nothing.
   *
   * Cost: of whole pages that do not continue each other, about half of one {@link link} each; columns a tenth less than a list.
   * @throws as {@link link}; ERR_DMA_LENGTH (EINVAL) for what is no list and no columns
   */
  linkVecs(
    offset: number,
    pieces: readonly PhysVec[] | PhysColumns,
    direction: Direction,
    attributes?: DmaAttributes,
  ): void {
    checkPieces(pieces);
    if (this.#ownershipLinks !== undefined || this.#events !== undefined)
      this.#linkEach(offset, piecesOf(pieces), direction, attributes);
    else {
      this.flush();
      linkVecs(this.#granules, this.#links, this.#simplePages, offset, pieces, termsOf(direction, attributes));
    }
  }

  /** For `mapVecs` and batches, whose pieces each have granules of their own: a link that may start inside one anywhere. */
  linkAtAnyOffset(offset: number, phys: PhysAddr, length: number, terms: Terms): void {
    const granules = this.#granules;
    const inside = granules.inside(phys);
    if (this.#events !== undefined) {
      const whole = granules.pages(inside + length) * PAGE; // what is announced goes on without holes: whole granules
      this.#events.linking(offset - inside, whole, phys - inside, terms);
    }
    try {
      this.#map(offset, phys, length, terms, permissions(terms.direction, terms.attributes, granules.device.coherent));
    } catch (error) {
      this.#events?.linkFailed(offset - inside, length, phys);
      throw error;
    }
  }

  /** What the device wrote is the CPU's to read; the device must not write meanwhile. Nothing to do for a plain device. */
  syncForCpu(): void {
    this.#ownershipLinks?.sync("cpu");
  }

  /** What the CPU wrote is the device's again. */
  syncForDevice(): void {
    this.#ownershipLinks?.sync("device");
  }

  /**
   * What was linked in [offset, offset + length) is promised from here on: the device may look. All, unless said.
   *
   * @throws DmaError ERR_DMA_LINK_RANGE, ERR_DMA_RELEASED (EINVAL); on a host whose links wait for their sync (coalescing on Linux) also what the
   * kernel says of the map, and then what waited is not linked
   */
  sync(offset = 0, length: number = this.#links.length - offset): void {
    const granules = this.#granules;
    if (this.#refusesMisuse) this.#links.check("sync", offset, length, 0);
    this.#events?.syncing(offset, length);
    if (!granules.device.coherent) granules.ownership.barrier();
    granules.domain.sync(this.#links.pageAt(offset), this.#links.pagesAt(offset, length));
  }

  /**
   * Takes [offset, offset + length) away from the device, now, in lazy mode too; the addresses stay reserved.
   *
   * With `lazy`, the entries are cleared now and the IOTLB is told later, by {@link flush}, the next link or the end: one
   * invalidation for any number of unlinks. Until then the device may still reach the memory. Plain devices only; others
   * are told now.
   * `terms` names what the piece was linked with, where it is known: it is checked.
   * @throws DmaError ERR_DMA_UNLINK_HOLE (EINVAL) if not all of it is linked, ERR_DMA_LINK_RANGE, ERR_DMA_RELEASED,
   * ERR_DMA_UNLINK_DIFFERS (EINVAL), ERR_DMA_SPLIT (ENOMEM: part of a large leaf, and no memory for the table of the rest);
   * nothing is unlinked then
   */
  unlink(offset: number, length: number, terms: Partial<Terms> & { readonly lazy?: boolean } = NOT_GIVEN): void {
    const links = this.#links;
    if (typeof offset !== "number" || typeof length !== "number")
      throw outsideRange("unlink", offset, length, links.length);
    if (this.#refusesMisuse) links.check("unlink", offset, length);
    const first = links.pageAt(offset);
    const pages = links.pagesAt(offset, length);
    if (this.#refusesMisuse && !links.isLinked(first, pages)) throw unlinkHole(offset, length);
    if (!this.#granules.device.linuxCompatible) links.isolate(first, pages);
    this.#events?.unlinking(offset, length);
    if (this.#ownershipLinks !== undefined)
      this.#ownershipLinks.unlink(links.address + offset, length, terms, () => links.clear(first, pages));
    else if (!terms.lazy) links.clear(first, pages);
    else {
      links.clearLater(first, pages);
      this.#simplePages = 0;
    }
  }

  /** After lazy unlinks: from here on the device cannot reach what was unlinked. */
  flush(): void {
    if (this.#links.flush() && !this.#links.released) this.#countSimple();
  }

  /**
   * Makes room for `length` bytes from the start, within {@link capacity}. False if there is not so much: nothing changes.
   *
   * @throws DmaError ERR_DMA_LENGTH (EINVAL)
   */
  grow(length: number): boolean {
    checkLength(length);
    const links = this.#links;
    if (links.released || length > this.capacity) return false;
    if (length > links.length) links.length = length;
    if (this.#simplePages > 0) this.#countSimple();
    return true;
  }

  /** Gives back a range in which nothing is linked; if something is, the same as {@link destroy}. Cannot fail. */
  free(): void {
    this.destroy();
  }

  /**
   * Unlinks everything and gives the range back: one invalidation, or one entry of the flush queue. Cannot fail.
   *
   * @param mappedLength what the caller believes to be linked from the start, bytes; checked when given
   * @throws DmaError ERR_DMA_DESTROY (EINVAL) if `mappedLength` is given and wrong; nothing is changed then
   */
  destroy(mappedLength?: number, terms: Partial<Terms> = NOT_GIVEN): void {
    const links = this.#links;
    if (links.released && this.#refusesMisuse) return;
    if (mappedLength === undefined) {
      this.#finish(links.pages, links.end, terms);
      return;
    }
    const pages = mappedLength === 0 ? 0 : links.pagesAt(0, mappedLength);
    if (this.#refusesMisuse) {
      if (!links.isExactly(pages)) throw destroyMismatch(mappedLength, links.count * PAGE);
      this.#finish(links.pages, links.end, terms);
    } else {
      links.trustLength(pages); // as Linux does: whatever the caller says
      this.#finish(pages === 0 ? links.pages : pages, mappedLength, terms);
    }
  }

  /** For calls that fail half-way: unlinks everything and gives the range back at once, in lazy mode too. */
  abort(): void {
    if (!this.#links.released) this.#finish(this.#links.pages, this.#links.end, NOT_GIVEN, true);
  }

  /** As `destroy`, for `using`. */
  [Symbol.dispose](): void {
    this.destroy();
  }

  /** Clears what is linked, of which the last byte lies before `end`, and gives back `reserved` pages. */
  #finish(reserved: number, end: number, terms: Partial<Terms>, atOnce: boolean = false): void {
    const links = this.#links;
    links.released = true;
    this.#simplePages = 0;
    links.flush();
    this.#events?.ending(links.count === 0, end);
    if (this.#ownershipLinks === undefined || links.count === 0) links.release(reserved, atOnce);
    else this.#ownershipLinks.finish(links.address, end, terms, (now) => links.release(reserved, now || atOnce));
  }

  #map(offset: number, phys: PhysAddr, length: number, terms: Terms, prot: number): void {
    const links = this.#links;
    const address = links.address + offset;
    if (this.#ownershipLinks === undefined) links.map(address, phys, length, prot);
    else this.#ownershipLinks.link(address, phys, length, terms, prot);
    links.note(links.pageAt(offset) - links.page, links.pagesAt(offset, length));
  }

  #linkEach(offset: number, vecs: readonly PhysVec[], direction: Direction, attributes?: DmaAttributes): void {
    let at = offset;
    try {
      for (const vec of vecs) {
        checkPiece(vec);
        const { phys, length } = vec;
        this.link(at, phys, length, direction, attributes);
        at += length;
      }
    } catch (error) {
      if (at > offset) this.unlink(offset, at - offset);
      throw error;
    }
  }
}

/** One for all: an end costs no garbage. */
const NOT_GIVEN: Partial<Terms> = {};
