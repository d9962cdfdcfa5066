/**
 * A device's address space on Linux: addresses by our own allocator, translations by the kernel.
 *
 * Idea: the same reserve, map, sync and release as a domain with tables of its own ({@link DmaDomain}), so the DMA API runs
 * unchanged. "Physical" addresses are addresses of this process. Each map is one call to the kernel; with `coalesce`, links
 * wait for their sync, and those that continue each other become one call.
 * Promises: a failed map leaves nothing; when an unmap returns, the device cannot reach the memory, and it is unpinned; an unmap
 * that the kernel cuts short is an error, and its addresses are never given out again.
 * Not for: unmapping part of what was mapped together: Linux does not (ERR_DMA_SPLIT, EOPNOTSUPP).
 * Specified by: docs/real-hardware.md; uAPI of Linux 7.2.
 */
import { Counters, hex, type IovaPage, type Observer, PAGE_SIZE, type PhysPage } from "../../base/index.ts";
import type { AddressSpace, LinkCursor } from "../../iommu/index.ts";
import { type GranuleRange, IovaAllocator, type IovaDevice, IovaSpace } from "../../iova/index.ts";
import { type Area, Areas } from "./areas.ts";
import { noMappings, overlaps, shortUnmap, splitRefused } from "./errors.ts";
import type { AddressRange, IoAddressSpace } from "./ioas.ts";

/** How maps are issued, and what is kept out. */
export interface LinuxDomainOptions {
  /** Links wait for their sync, and adjacent ones become one call. False unless said. */
  readonly coalesce?: boolean;
  /** Counted into; counters of its own unless given. */
  readonly counters?: Counters;
  /** Told of every mapping that the kernel was given or lost. */
  readonly observer?: Observer | undefined;
  /** Addresses that are never given out, though the kernel would map them; none unless said. */
  readonly keepOut?: readonly AddressRange[];
}

/** Calls to the kernel that map and unmap, since the start. */
export interface KernelCalls {
  /** Calls that mapped. */
  maps: number;
  /** Calls that unmapped. */
  unmaps: number;
}

/** Addresses of a process: 57 bits at most. */
const ADDRESS_BITS = 57;

/**
 * A device's address space over the kernel's: addresses are chosen here, tables are the kernel's. Memory is this
 * process's, by its own addresses; the kernel pins it.
 */
export class LinuxDomain implements AddressSpace {
  /** What the work in it cost, as far as this process does it: the kernel's own is not seen. */
  readonly counters: Counters;
  readonly mode = "strict";
  readonly granule: number;
  readonly outputBits: number = ADDRESS_BITS;
  /** Calls to the kernel so far. */
  readonly calls: KernelCalls = { maps: 0, unmaps: 0 };
  readonly #kernel: IoAddressSpace;
  readonly #granulePages: number;
  readonly #space: IovaSpace;
  readonly #areas = new Areas();
  readonly #coalesce: boolean;
  readonly #observer: Observer | undefined;
  /** Areas that wait for a sync. */
  #waiting = 0;
  #closed = false;

  /** Takes over the kernel's space: {@link close} ends it. Made by {@link LinuxHost.openDevice}. */
  constructor(kernel: IoAddressSpace, options: LinuxDomainOptions = {}) {
    this.#kernel = kernel;
    this.counters = options.counters ?? new Counters();
    this.granule = kernel.granule;
    this.#granulePages = kernel.granule / PAGE_SIZE;
    this.#coalesce = options.coalesce ?? false;
    this.#observer = options.observer;
    const domain = new IovaAllocator({ granule: this.granule, firstGranule: 1, counters: this.counters });
    const end = kernel.ranges.at(-1)?.end ?? 0;
    this.#space = new IovaSpace(domain, { lastGranule: end / this.granule - 1, observer: options.observer });
    const kept = (options.keepOut ?? []).map(({ start, end }) => ({
      first: Math.floor(start / this.granule),
      last: Math.ceil(end / this.granule) - 1,
    }));
    this.#space.join([...holes(kernel, this.granule), ...kept]);
  }

  /** Mappings that exist. */
  get areaCount(): number {
    return this.#areas.count;
  }

  /** What is mapped, in order of addresses; bytes. */
  get mappings(): {
    /** First address for devices. */
    iova: number;
    /** What it reaches: an address of this process. */
    address: number;
    /** How many. */
    length: number;
    /** Permission bits, as maps are given them. */
    prot: number;
  }[] {
    return [...this.#areas]
      .filter(({ issued }) => issued)
      .map(({ page, pages, frame, prot }) => ({
        iova: page * PAGE_SIZE,
        address: frame * PAGE_SIZE,
        length: pages * PAGE_SIZE,
        prot,
      }));
  }

  /** Reserves `pages`, whole granules, below `limitPage`; 0 if there is no room. */
  reserve(pages: number, limitPage: number, device: IovaDevice): IovaPage {
    const per = this.#granulePages;
    return (this.#space.allocate(pages / per, Math.floor(limitPage / per), device) * per) as IovaPage;
  }

  /** Links go where every map goes; with `coalesce` they wait for their sync. */
  openLinks(): LinkCursor {
    return new KernelLinks(this, this.#coalesce);
  }

  /**
   * Makes `pages` from `page` reach memory from `phys` on; at once, or at the sync if it `waits`.
   *
   * Cost: one call to the kernel, which pins the pages.
   * @throws DmaError ERR_DMA_MAP (EADDRINUSE), ERR_DMA_SYSCALL (ENOMEM: locked memory; EFAULT, ENOSPC), ERR_DMA_LINUX_CLOSED
   */
  map(page: IovaPage, phys: PhysPage, pages: number, prot: number, waits: boolean = false): void {
    if (this.#closed) throw noMappings();
    const place = this.#areas.from(page);
    const next = this.#areas.at(place);
    if (next !== undefined && next.page < page + pages) throw overlaps(page * PAGE_SIZE, pages * PAGE_SIZE);
    if (waits) {
      const before = this.#areas.at(place - 1);
      const goesOn = before !== undefined && continues(before, page, phys, prot);
      if (goesOn && this.#kernel.joins(phys * PAGE_SIZE)) before.pages += pages;
      else {
        this.#areas.insert(place, { page, pages, frame: phys, prot, issued: false });
        this.#waiting++;
      }
      return;
    }
    this.#issue(page, phys, pages, prot);
    this.#areas.insert(place, { page, pages, frame: phys, prot, issued: true });
  }

  /**
   * Links of [`page`, + `pages`) that waited are mapped now.
   *
   * @throws DmaError as {@link map}; none of those that waited in the range is mapped then, nor waits
   */
  sync(page: IovaPage, pages: number): void {
    this.counters.mapSyncs++;
    this.#observer?.mapSynced?.(page * PAGE_SIZE, pages * PAGE_SIZE);
    if (this.#waiting === 0) return;
    const areas = this.#areas;
    const done: Area[] = [];
    for (let place = areas.from(page); ; place++) {
      const area = areas.at(place);
      if (area === undefined || area.page >= page + pages) return;
      if (area.issued) continue;
      try {
        this.#issue(area.page, area.frame, area.pages, area.prot);
      } catch (error) {
        for (const one of done) this.unmapNow(one.page as IovaPage, one.pages);
        this.#dropWaiting(page, pages);
        throw error;
      }
      area.issued = true;
      this.#waiting--;
      done.push(area);
    }
  }

  lookup(page: IovaPage): PhysPage | -1 {
    const area = this.#areas.holding(page);
    return area === undefined ? -1 : ((area.frame + page - area.page) as PhysPage);
  }

  /** Refuses what would need a part of a mapping to go. @throws DmaError ERR_DMA_SPLIT (EOPNOTSUPP) */
  isolate(page: IovaPage, pages: number): void {
    for (const edge of [page, page + pages - 1]) {
      const area = this.#areas.holding(edge);
      if (area?.issued && (area.page < page || area.page + area.pages > page + pages))
        throw splitRefused(page * PAGE_SIZE, pages * PAGE_SIZE, inBytes(area));
    }
  }

  /** One call for all mappings of the range. @throws DmaError ERR_DMA_SPLIT, ERR_DMA_LINUX_SHORT_UNMAP */
  unmapNow(page: IovaPage, pages: number): number {
    if (this.#closed) return 0;
    this.isolate(page, pages);
    const dropped = this.#waiting > 0 ? this.#dropWaiting(page, pages) : 0;
    const areas = this.#areas;
    const place = areas.from(page);
    let end = place;
    let issued = 0;
    for (let area = areas.at(end); area !== undefined && area.page < page + pages; area = areas.at(++end))
      issued += area.pages;
    if (issued === 0) return dropped;
    const first = areas.at(place)!.page * PAGE_SIZE;
    const last = areas.at(end - 1)!;
    const length = (last.page + last.pages) * PAGE_SIZE - first;
    this.calls.unmaps++;
    const unmapped = this.#kernel.unmap(first, length);
    this.#observer?.unmapped?.(first, length, unmapped);
    if (unmapped !== issued * PAGE_SIZE) throw shortUnmap(first, issued * PAGE_SIZE, unmapped);
    areas.remove(place, end);
    this.counters.leavesCleared += issued;
    this.counters.rangeInvalidations++;
    return issued + dropped;
  }

  /** Unmaps [`page`, + `mapped`) and gives [`page`, + `reserved`) back. @throws DmaError ERR_DMA_LINUX_SHORT_UNMAP */
  release(page: IovaPage, mapped: number, reserved: number): number {
    const unmapped = mapped === 0 ? 0 : this.unmapNow(page, mapped);
    this.#free(page, reserved);
    return unmapped;
  }

  releaseSparse(first: IovaPage, span: number, page: IovaPage, reserved: number): number {
    const unmapped = this.unmapNow(first, span);
    this.#free(page, reserved);
    return unmapped;
  }

  /** The kernel's space ends with all that is mapped; later releases find nothing to do. A second time does nothing. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#kernel.close();
    for (const { page, pages, issued } of this.#areas)
      if (issued) {
        this.counters.leavesCleared += pages;
        this.#observer?.unmapped?.(page * PAGE_SIZE, pages * PAGE_SIZE, pages * PAGE_SIZE);
      }
    this.#areas.remove(0, this.#areas.count);
    this.#waiting = 0;
    this.#space.drain();
  }

  #free(page: IovaPage, reserved: number): void {
    try {
      this.#space.free(page / this.#granulePages, reserved / this.#granulePages);
    } catch {
      // A release of what is nobody's: the allocator changed nothing, and release cannot fail.
    }
  }

  #issue(page: number, frame: number, pages: number, prot: number): void {
    this.calls.maps++;
    this.#kernel.map(page * PAGE_SIZE, frame * PAGE_SIZE, pages * PAGE_SIZE, prot);
    this.counters.leavesWritten += pages;
    this.#observer?.mapped?.(page * PAGE_SIZE, frame * PAGE_SIZE, pages * PAGE_SIZE, prot);
  }

  /** What waits in the range is forgotten; of an area that reaches out, the part inside. Pages. */
  #dropWaiting(page: number, pages: number): number {
    const areas = this.#areas;
    const end = page + pages;
    let dropped = 0;
    for (let place = areas.from(page); ; ) {
      const area = areas.at(place);
      if (area === undefined || area.page >= end) return dropped;
      if (area.issued) {
        place++;
        continue;
      }
      const areaEnd = area.page + area.pages;
      areas.remove(place, place + 1);
      this.#waiting--;
      for (const [from, to] of [
        [area.page, Math.min(page, areaEnd)],
        [Math.max(end, area.page), areaEnd],
      ] as const)
        if (to > from) {
          areas.insert(place++, { ...area, page: from, pages: to - from, frame: area.frame + from - area.page });
          this.#waiting++;
        }
      dropped += Math.min(end, areaEnd) - Math.max(page, area.page);
    }
  }

  toString(): string {
    const { ranges, kind } = this.#kernel;
    return `${kind}: ${ranges.map(({ start, end }) => `${hex(start)}-${hex(end - 1)}`).join(", ")}`;
  }
}

/** The links of one range: the kernel's tables cannot be written, and it invalidates at once. */
class KernelLinks implements LinkCursor {
  readonly #domain: LinuxDomain;
  readonly #wait: boolean;

  constructor(domain: LinuxDomain, wait: boolean) {
    this.#domain = domain;
    this.#wait = wait;
  }

  mapPage(): boolean {
    return false;
  }

  mapPages(): number {
    return 0;
  }

  map(page: IovaPage, phys: PhysPage, pages: number, prot: number): void {
    this.#domain.map(page, phys, pages, prot, this.#wait);
  }

  mapRuns(page: IovaPage, physPages: Float64Array, pages: Int32Array, count: number, prot: number): number {
    let mapped = 0;
    try {
      for (let i = 0; i < count; i++) {
        this.map((page + mapped) as IovaPage, physPages[i] as PhysPage, pages[i]!, prot);
        mapped += pages[i]!;
      }
    } catch (error) {
      if (mapped > 0) this.#domain.unmapNow(page, mapped);
      throw error;
    }
    return mapped;
  }

  unmapLater(page: IovaPage, pages: number): number {
    return this.#domain.unmapNow(page, pages);
  }

  /** Nothing waits. */
  flush(): boolean {
    return false;
  }
}

/** True if a waiting area goes on at `page` with memory from `frame`. */
function continues(
  { issued, page: start, pages, frame: first, prot: has }: Area,
  page: number,
  frame: number,
  prot: number,
): boolean {
  return !issued && has === prot && start + pages === page && first + pages === frame;
}

const inBytes = ({ page, pages }: Area): { iova: number; length: number } => ({
  iova: page * PAGE_SIZE,
  length: pages * PAGE_SIZE,
});

/** What lies between the ranges that may be used: granules, inclusive. */
function holes({ ranges }: IoAddressSpace, granule: number): GranuleRange[] {
  const found: GranuleRange[] = [];
  let at = 0;
  for (const { start, end } of ranges) {
    if (start > at) found.push({ first: at / granule, last: start / granule - 1 });
    at = end;
  }
  return found;
}
