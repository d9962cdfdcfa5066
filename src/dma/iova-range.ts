/**
 * An IOVA range: the two-step mapping. Reserve address space once; link, sync and unlink memory in it; give it back.
 *
 * Idea: the caller decides the layout of the range, so input (physical runs) and output (one address) never share a
 * structure, and one invalidation ends it all. Promises: what was never linked is never reachable; a failed link leaves
 * nothing of itself; release cannot fail, and a second release does nothing.
 * A plain device (coherent, trusted) takes the short way here; what others need besides is in `careful.ts`.
 * Checked, unless the device says otherwise: a link past the end, an unlink of a hole, use after release. Not checked here:
 * that the device waits for {@link IovaRange.sync}.
 * Specified by: behaviour of Linux 7.2 two-step DMA API.
 */
import { type Iova, IovaPage, PAGE_SIZE, type PhysAddr, type PhysPage } from "../base/index.ts";
import type { AddressSpace, AddressTable } from "../iommu/index.ts";
import { Gather, LeafCursor } from "../pagetable/index.ts";
import { CarefulLinks } from "./careful.ts";
import {
  badAddress,
  badDirection,
  destroyMismatch,
  linkMisplaced,
  linkPastEnd,
  linkUnaligned,
  physTooWide,
  rangeReleased,
  sharedForbidden,
  unlinkHole,
} from "./errors.ts";
import { RUNS } from "./page-runs.ts";
import { permissions } from "./permissions.ts";
import type { TranslatedPath } from "./translated.ts";
import { attributeBits, type Direction, type DmaAttributes, type PhysVec } from "./vectors.ts";

export class IovaRange implements Disposable {
  #address: Iova = 0 as Iova;
  readonly #path: TranslatedPath;
  readonly #domain: AddressSpace;
  readonly #granule: number = 0;
  readonly #perGranule: number = 0;
  #page: IovaPage = 0 as IovaPage;
  #pages = 0;
  readonly #checked: boolean = true;
  readonly #table: AddressTable;
  #length = 0;
  /** Whole pages that may take the short way of {@link link}; 0 once the range was given back. */
  #simplePages = 0;
  #isSimple = false;
  /** What the last simple link allowed: the next one mostly allows the same. */
  #direction: Direction = "bidirectional";
  #prot: number = permissions("bidirectional");
  /** Last byte that a link was announced for. */
  #announcedEnd = 0;
  /** Of the last link of any kind: what the events of the end say. */
  #lastDirection: Direction = "bidirectional";
  /** Pages [#first, #end) of the range hold everything linked; #linked of them are. */
  #first = NONE;
  #end = 0;
  #linked = 0;
  #released = false;
  /** A leaf may cover more than a granule: a part of it can be unlinked only when it has been split. */
  #mayBeLarge = false;
  /** Bounces, cache maintenance, privacy: undefined for a plain device. */
  readonly #careful: CarefulLinks | undefined;
  /** Unlinked, but maybe still known to the IOTLB. */
  #stale: Gather | undefined;
  /** The leaf table of the last link: the next one rarely needs another. */
  readonly #cursor = new LeafCursor();

  /** Made by {@link Dma.tryReserveIova}. The first address lies `inside` bytes into `page`. */
  constructor(path: TranslatedPath, page: IovaPage, pages: number, inside: number, length: number) {
    const { device, domain } = path;
    this.#path = path;
    this.#domain = domain;
    this.#table = domain.table;
    this.#granule = path.granule;
    this.#perGranule = path.perGranule;
    this.#checked = device.checked;
    const plain = device.coherent && !device.untrusted && device.machine.encryption === undefined;
    this.#careful = plain
      ? undefined
      : new CarefulLinks(path, (at, phys, bytes, prot, pad) => this.#map(at, phys, bytes, prot, pad));
    this.#open(page, pages, inside, length);
  }

  #open(page: IovaPage, pages: number, inside: number, length: number): void {
    const { device } = this.#path;
    this.#page = page;
    this.#pages = pages;
    this.#address = (page * PAGE_SIZE + inside) as Iova;
    this.#length = length;
    const isPlain = this.#careful === undefined && device.observer === undefined;
    this.#isSimple = isPlain && this.#granule === PAGE_SIZE && inside === 0;
    this.#simplePages = this.#isSimple ? Math.floor(length / PAGE_SIZE) : 0;
  }

  /**
   * The object of a range that was given back serves for another one; false, and nothing happens, if it cannot: other
   * device, still in use, not plain. For {@link Dma.tryReserveIova}.
   */
  reopen(path: TranslatedPath, page: IovaPage, pages: number, inside: number, length: number): boolean {
    if (path !== this.#path || !this.#released || this.#careful !== undefined) return false;
    this.#released = false;
    this.#first = NONE;
    this.#end = 0;
    this.#announcedEnd = 0;
    this.#mayBeLarge = false;
    this.#open(page, pages, inside, length);
    return true;
  }

  /** First address; the caller's offsets count from here. */
  get address(): Iova {
    return this.#address;
  }

  /** Bytes that may be linked. */
  get length(): number {
    return this.#length;
  }

  /** Bytes that {@link grow} can reach: what was reserved. */
  get capacity(): number {
    return (this.#page + this.#pages) * PAGE_SIZE - this.address;
  }

  /** Some of what is linked goes through bounce buffers. */
  get hasBounced(): boolean {
    return this.#careful?.hasBounced ?? false;
  }

  /** Pages that are linked now. */
  get linkedPages(): number {
    return this.#linked;
  }

  /**
   * Makes `length` bytes at `offset` of the range reach physical memory from `phys` on. Only the first piece may start
   * inside a granule, only the last may end inside one. Not promised to the device before {@link sync}.
   *
   * Cost: one entry a page (fewer with larger leaves), no invalidation.
   * @throws DmaError ERR_DMA_LINK_RANGE, ERR_DMA_ADDRESS, ERR_DMA_DIRECTION, ERR_DMA_RELEASED (EINVAL),
   * ERR_DMA_LINK_ALIGNMENT (EIO, ENXIO), ERR_DMA_MAP (EADDRINUSE, ERANGE, ENOMEM), ERR_DMA_SHARED (EOPNOTSUPP); besides,
   * on devices that need care: ERR_DMA_NOT_COHERENT (EOPNOTSUPP), ERR_DMA_BOUNCE_FORBIDDEN, ERR_DMA_PRIVATE (EPERM),
   * ERR_DMA_BOUNCE_FULL, ERR_DMA_BOUNCE_NONE (ENOMEM)
   */
  link(offset: number, phys: PhysAddr, length: number, direction: Direction, attributes?: DmaAttributes): void {
    // A whole page of a range that starts on one, on a device that needs no care: nearly all of them. What is odd in any way
    // takes the long way, which says what is wrong.
    if (length === PAGE_SIZE && attributes === undefined) {
      const index = offset / PAGE_SIZE;
      const frame = phys / PAGE_SIZE;
      if (index >= 0 && index < this.#simplePages && index === Math.floor(index) && frame === Math.floor(frame)) {
        if (direction !== this.#direction) {
          this.#direction = direction;
          this.#lastDirection = direction;
          this.#prot = permissions(direction);
        }
        if (this.#table.mapPage(this.#page + index, frame, this.#prot, this.#cursor)) {
          if (index < this.#first) this.#first = index;
          if (index >= this.#end) this.#end = index + 1;
          this.#linked++;
          return;
        }
      }
    }
    this.#linkAny(offset, phys, length, direction, attributes);
  }

  #linkAny(offset: number, phys: PhysAddr, length: number, direction: Direction, attributes?: DmaAttributes): void {
    if (this.#checked) this.#checkPiece("link", offset, length);
    if (!(phys >= 0)) throw badAddress(phys);
    if (offset > 0 && phys - Math.floor(phys * this.#perGranule) * this.#granule !== 0)
      throw linkUnaligned(offset, phys, this.#granule);
    const { device } = this.#path;
    const prot = permissions(direction, attributes, device.coherent);
    if (prot === 0) {
      if (device.linuxCompatible) this.#refused(this.address + offset, phys, this.#path.inside(phys), 0);
      throw badDirection(direction);
    }
    if (attributes?.shared && !device.linuxCompatible) throw sharedForbidden(device.name);
    if (this.#stale !== undefined) this.flush();
    if (device.observer !== undefined) this.#announce("dma_iova_link", offset, length, phys, direction, attributes);
    this.#lastDirection = direction;
    const [first, end, linked] = [this.#first, this.#end, this.#linked];
    try {
      if (this.#careful === undefined) this.#map(this.address + offset, phys, length, prot);
      else this.#careful.link(this.address + offset, phys, length, direction, prot, attributes);
    } catch (error) {
      [this.#first, this.#end, this.#linked] = [first, end, linked]; // a bounced piece may have been half there
      if (device.observer !== undefined) this.#announceFailure(offset, length, phys);
      throw error;
    }
  }

  /**
   * Links `vecs` one after the other from `offset` on: the same as one {@link link} each, in one call. All or nothing.
   *
   * @throws as {@link link}
   */
  linkVecs(offset: number, vecs: readonly PhysVec[], direction: Direction, attributes?: DmaAttributes): void {
    if (this.#careful !== undefined || this.#path.device.observer !== undefined) {
      this.#linkEach(offset, vecs, direction, attributes);
      return;
    }
    const pages = attributes === undefined ? this.#linkPages(offset, vecs, direction) : 0;
    if (pages === vecs.length) return;
    try {
      this.#linkRuns(offset, pages, vecs, direction, attributes);
    } catch (error) {
      if (pages > 0) this.#linked -= this.#domain.unmapNow(this.#pageOf(this.address + offset), pages);
      throw error;
    }
  }

  /** Links as many of the first `vecs` as are single pages that no neighbour continues; how many. The rest goes by runs. */
  #linkPages(offset: number, vecs: readonly PhysVec[], direction: Direction): number {
    const index = offset / PAGE_SIZE;
    const count = vecs.length;
    if (!(index >= 0 && index === Math.floor(index) && index + count <= this.#simplePages)) return 0;
    if (FRAMES.length < count) FRAMES = new Float64Array(count * 2);
    const frames = FRAMES;
    let before = NO_FRAME;
    let single = 0;
    while (single < count) {
      const { phys, length } = vecs[single]!;
      const frame = phys / PAGE_SIZE;
      if (length !== PAGE_SIZE || frame !== Math.floor(frame) || frame === before + 1) break;
      frames[single++] = frame;
      before = frame;
    }
    if (single < count && single > 0) single--; // the last one may go on into what follows
    const prot = permissions(direction);
    const first = this.#page + index;
    let done = 0;
    while (done < single) {
      done += this.#table.mapPages(first + done, frames, done, single - done, prot, this.#cursor);
      if (done === single) break;
      // The first page in each table goes the long way, and leaves the table in the cursor.
      const [page, frame] = [(first + done) as IovaPage, frames[done] as PhysPage];
      if (this.#table.map(page, frame, 1, prot, this.#cursor) !== 0) break;
      done++;
    }
    if (done > 0) this.#note(index, done);
    return done;
  }

  /** Links `vecs` from number `from` on, physically adjacent ones together, all or nothing. */
  #linkRuns(
    offset: number,
    from: number,
    vecs: readonly PhysVec[],
    direction: Direction,
    attributes?: DmaAttributes,
  ): void {
    const { device } = this.#path;
    const runs = RUNS;
    runs.clear();
    const start = offset + from * PAGE_SIZE;
    let at = start;
    for (let i = from; i < vecs.length; i++) {
      const { phys, length } = vecs[i]!;
      if (this.#checked) this.#checkPiece("link", at, length);
      if (!(phys >= 0)) throw badAddress(phys);
      const inside = this.#path.inside(phys);
      if (at > 0 && inside !== 0) throw linkUnaligned(at, phys, this.#granule);
      if (this.#path.inside(this.address + at) !== inside) throw linkMisplaced(at, phys, this.address + at);
      runs.add((phys - inside) / PAGE_SIZE, this.#path.pages(inside + length));
      at += length;
    }
    if (runs.count === 0) return;
    const prot = permissions(direction, attributes);
    if (prot === 0) throw badDirection(direction);
    if (attributes?.shared && !device.linuxCompatible) throw sharedForbidden(device.name);
    if (this.#stale !== undefined) this.flush();
    const first = this.#pageOf(this.address + start);
    const pages = this.#domain.mapRuns(first, runs.physPages, runs.pages, runs.count, prot, this.#cursor);
    this.#note(first - this.#page, pages);
  }

  /** For `mapVecs` and batches, whose pieces each have granules of their own: a link that may start inside one anywhere. */
  place(offset: number, phys: PhysAddr, length: number, direction: Direction, attributes?: DmaAttributes): void {
    const { device } = this.#path;
    const prot = permissions(direction, attributes, device.coherent);
    if (device.observer !== undefined) {
      const inside = this.#path.inside(phys); // what is announced goes on without holes: whole granules
      const whole = this.#path.pages(inside + length) * PAGE_SIZE;
      this.#announce("dma_iova_link", offset - inside, whole, (phys - inside) as PhysAddr, direction, attributes);
    }
    this.#lastDirection = direction;
    try {
      if (this.#careful === undefined) this.#map(this.address + offset, phys, length, prot);
      else this.#careful.link(this.address + offset, phys, length, direction, prot, attributes);
    } catch (error) {
      if (device.observer !== undefined) this.#announceFailure(offset - this.#path.inside(phys), length, phys);
      throw error;
    }
  }

  /** What the device wrote is the CPU's to read; the device must not write meanwhile. Nothing to do for a plain device. */
  syncForCpu(): void {
    this.#careful?.sync("cpu");
  }

  /** What the CPU wrote is the device's again. */
  syncForDevice(): void {
    this.#careful?.sync("device");
  }

  /**
   * What was linked in [offset, offset + length) is promised from here on: the device may look. All, unless said.
   *
   * @throws DmaError ERR_DMA_RELEASED (EINVAL); on a host whose links wait for their sync (coalescing on Linux) also what the
   * kernel says of the map, and then what waited is not linked
   */
  sync(offset = 0, length: number = this.#length - offset): void {
    if (this.#checked && this.#released) throw rangeReleased("sync");
    if (this.#path.device.observer !== undefined) this.#announce("dma_iova_sync", offset, length);
    if (!this.#path.device.coherent) this.#path.ownership.barrier();
    const first = this.#pageOf(this.address + offset);
    const inside = this.#path.inside(this.address + offset);
    this.#domain.sync(first, this.#path.pages(inside + length));
  }

  /**
   * Takes [offset, offset + length) away from the device, now, in lazy mode too; the addresses stay reserved.
   *
   * With `lazy`, the entries are cleared now and the IOTLB is told later, by {@link flush}, the next link or the end: one
   * invalidation for any number of unlinks. Until then the device may still reach the memory. Plain devices only; others
   * are told now.
   * `as` names what the piece was linked with, where it is known: it is checked.
   * @throws DmaError ERR_DMA_UNLINK_HOLE (EINVAL) if not all of it is linked, ERR_DMA_LINK_RANGE, ERR_DMA_RELEASED,
   * ERR_DMA_UNLINK_DIFFERS (EINVAL), ERR_DMA_SPLIT (ENOMEM: part of a large leaf, and no memory for the table of the rest);
   * nothing is unlinked then
   */
  unlink(
    offset: number,
    length: number,
    as: { readonly lazy?: boolean; readonly direction?: Direction; readonly attributes?: DmaAttributes } = NOTHING_SAID,
  ): void {
    if (this.#checked) this.#checkPiece("unlink", offset, length);
    const address = this.address + offset;
    const first = this.#pageOf(address);
    const pages = this.#path.pages(this.#path.inside(address) + length);
    if (this.#checked && !this.#isLinked(first, pages)) throw unlinkHole(offset, length);
    if (this.#mayBeLarge && !this.#path.device.linuxCompatible) this.#domain.isolate(first, pages);
    if (this.#path.device.observer !== undefined) this.#announce("dma_iova_unlink", offset, length);
    if (this.#careful !== undefined)
      this.#linked -= this.#careful.unlink(address, length, as, () => this.#domain.unmapNow(first, pages));
    else if (as.lazy) {
      this.#stale ??= new Gather();
      this.#simplePages = 0;
      this.#linked -= this.#domain.unmapLater(first, pages, this.#stale);
    } else this.#linked -= this.#domain.unmapNow(first, pages);
    if (this.#linked === 0) {
      this.#first = NONE;
      this.#end = 0;
    }
  }

  /** After lazy unlinks: from here on the device cannot reach what was unlinked. */
  flush(): void {
    const stale = this.#stale;
    this.#stale = undefined;
    if (stale === undefined) return;
    this.#domain.invalidate(stale);
    if (this.#isSimple && !this.#released) this.#simplePages = Math.floor(this.#length / PAGE_SIZE);
  }

  /** Makes room for `length` bytes from the start, within {@link capacity}. False if there is not so much: nothing changes. */
  grow(length: number): boolean {
    if (this.#released || length > this.capacity) return false;
    if (length > this.#length) this.#length = length;
    if (this.#simplePages > 0) this.#simplePages = Math.floor(this.#length / PAGE_SIZE);
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
  destroy(
    mappedLength?: number,
    as: { readonly direction?: Direction; readonly attributes?: DmaAttributes } = NOTHING_SAID,
  ): void {
    if (this.#released && this.#checked) return;
    if (mappedLength !== undefined) {
      const pages = mappedLength === 0 ? 0 : this.#path.pages(this.#path.inside(this.address) + mappedLength);
      if (!this.#checked) {
        this.#end = pages; // as Linux does: whatever the caller says
        this.#linked = pages;
        this.#first = pages === 0 ? NONE : 0;
        this.#finish(pages === 0 ? this.#pages : pages, mappedLength, as);
        return;
      }
      const exact = this.#end === pages || pages === 0 || this.#isLinked(this.#page, pages);
      if (pages !== this.#linked || (pages > 0 && this.#first !== 0) || !exact)
        throw destroyMismatch(mappedLength, this.#linked * PAGE_SIZE);
    }
    this.#finish(this.#pages, (this.#page + this.#end) * PAGE_SIZE - this.address, as);
  }

  /** For calls that fail half-way: unlinks everything and gives the range back at once, in lazy mode too. */
  undo(): void {
    if (this.#released) return;
    this.#finish(this.#pages, (this.#page + this.#end) * PAGE_SIZE - this.address, NOTHING_SAID, true);
  }

  [Symbol.dispose](): void {
    this.destroy();
  }

  /** Clears what is linked, of which the last byte lies before `end`, and gives back `reserved` pages. */
  #finish(
    reserved: number,
    end: number,
    as: { direction?: Direction; attributes?: DmaAttributes },
    atOnce: boolean = false,
  ): void {
    this.#released = true;
    this.#simplePages = 0;
    this.flush();
    if (this.#path.device.observer !== undefined)
      this.#announce(this.#linked === 0 ? "dma_iova_free" : "dma_iova_destroy", 0, Math.min(end, this.#announcedEnd));
    if (this.#linked === 0) this.#domain.release(this.#page, 0, reserved);
    else if (this.#careful === undefined) this.#release(reserved, atOnce);
    else this.#careful.finish(this.address, end, as, (now) => this.#release(reserved, now || atOnce));
    this.#linked = 0;
  }

  #release(reserved: number, now: boolean): void {
    const span = this.#end - this.#first;
    if (this.#first !== 0 || span !== this.#linked)
      this.#domain.releaseSparse(IovaPage.add(this.#page, this.#first), span, this.#page, reserved);
    else {
      if (now) this.#domain.unmapNow(this.#page, span);
      this.#domain.release(this.#page, now ? 0 : span, reserved);
    }
  }

  /** Maps the granules that hold [phys, + length) at the granule of `address`. `pad` is where the caller's memory starts in its. */
  #map(address: number, phys: number, length: number, prot: number, pad: number = this.#path.inside(phys)): void {
    const granule = Math.floor(address * this.#perGranule) * this.#granule;
    const inside = address - granule;
    const frame = phys - inside;
    if (phys - Math.floor(phys * this.#perGranule) * this.#granule !== inside) {
      this.#refused(address, phys, pad, prot);
      const { outputBits } = this.#domain.table.layout;
      if (phys + length > 2 ** outputBits) throw physTooWide(phys, outputBits);
      throw linkMisplaced(address - this.address, phys, address);
    }
    const page = granule / PAGE_SIZE;
    const pages = Math.ceil((inside + length) * this.#perGranule) * (this.#granule / PAGE_SIZE);
    this.#domain.map(page as IovaPage, (frame / PAGE_SIZE) as PhysPage, pages, prot, this.#cursor);
    this.#note(page - this.#page, pages);
  }

  /** What the kernel's events say of a link that its page table refuses. */
  #refused(address: number, phys: number, pad: number, prot: number): void {
    const { observer } = this.#path.device;
    observer?.mapped?.(address - pad, phys - pad, 0, prot);
    observer?.unmapped?.(address - pad, 0, 0);
  }

  #linkEach(offset: number, vecs: readonly PhysVec[], direction: Direction, attributes?: DmaAttributes): void {
    let at = offset;
    try {
      for (const { phys, length } of vecs) {
        this.link(at, phys, length, direction, attributes);
        at += length;
      }
    } catch (error) {
      if (at > offset) this.unlink(offset, at - offset);
      throw error;
    }
  }

  #checkPiece(what: string, offset: number, length: number): void {
    if (this.#released) throw rangeReleased(what);
    if (!(length > 0 && offset >= 0 && offset + length <= this.#length))
      throw linkPastEnd(offset, length, this.#length);
  }

  #isLinked(first: IovaPage, pages: number): boolean {
    const step = this.#granule / PAGE_SIZE;
    for (let page = 0; page < pages; page += step)
      if (this.#domain.table.lookup(IovaPage.add(first, page)) < 0) return false;
    return true;
  }

  #pageOf(address: number): IovaPage {
    return ((Math.floor(address * this.#perGranule) * this.#granule) / PAGE_SIZE) as IovaPage;
  }

  #note(first: number, pages: number): void {
    if (first < this.#first) this.#first = first;
    if (first + pages > this.#end) this.#end = first + pages;
    this.#linked += pages;
    if (pages > this.#path.granulePages) this.#mayBeLarge = true;
  }

  /** The link that was announced did not come about. */
  #announceFailure(offset: number, length: number, phys: number): void {
    const { device } = this.#path;
    const { address } = this;
    device.announceTwoStep({
      name: "dma_iova_link",
      device: device.name,
      address,
      reserved: this.#length,
      offset,
      length,
      phys,
      ok: false,
    });
  }

  #announce(
    name: "dma_iova_link" | "dma_iova_sync" | "dma_iova_unlink" | "dma_iova_free" | "dma_iova_destroy",
    offset: number,
    length: number,
    phys?: number,
    direction?: Direction,
    attributes?: DmaAttributes,
  ): void {
    const { device } = this.#path;
    if (name === "dma_iova_link") this.#announcedEnd = Math.max(this.#announcedEnd, offset + length);
    device.announceTwoStep({
      name,
      device: device.name,
      address: this.address,
      reserved: this.#length,
      offset,
      length,
      direction: this.#lastDirection,
      ...(phys !== undefined && { phys }),
      ...(direction !== undefined && { direction, attributes: attributeBits(attributes) }),
    });
  }
}

/** Of how a piece was linked; one for all, as an end costs no garbage. */
const NOTHING_SAID = {};

/** Frames of one vector link: used up before the call returns. */
let FRAMES = new Float64Array(512);

/** No page goes on from this one. */
const NO_FRAME = -2;

/** Later than any page of a range. */
const NONE = 2 ** 30;
