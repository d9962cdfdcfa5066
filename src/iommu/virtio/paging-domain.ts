/**
 * A domain of a virtio-iommu: the device keeps its mappings, and is told of each by a request. The caller chooses the addresses.
 *
 * Idea: no tables. What is mapped stands in a list here and in the device; a map or unmap changes the list at once and adds
 * a request, and a sync sends what waits. So n links and one sync are one notification of the device, as is an unmap of any
 * length.
 * Promises: a failed map leaves nothing behind: what the device refuses shows at the sync, which takes back all that it was
 * for. When an unmap returns, the device cannot reach the pages any more.
 * Not for: choosing addresses; that is {@link VirtioDmaDomain}'s. Nor for unmapping part of what was mapped together: the device
 * does not (ERR_DMA_SPLIT).
 * With `linuxCompatible` as Linux 7.2 does it: a request per page size, mappings that overlap or permit nothing are taken, an
 * unmap removes what begins in its range, whole, and tells the device nothing if that was less than asked.
 * Specified by: Virtual I/O Device (VIRTIO) version 1.3, 5.13; behaviour of Linux 7.2, judged by test/golden/dma-api.
 */
import { Counters, ERRNO, type IovaPage, type Observer, PAGE_SIZE, type PhysPage } from "../../base/index.ts";
import { MMIO, READ, sizesOfBitmap, WRITE } from "../../layouts/pagetable/index.ts";
import { MAP_FLAG, STATUS } from "../../layouts/virtio-iommu/index.ts";
import { PageSizes } from "../../pagetable/index.ts";
import { domainLacks, mapRefused } from "../errors.ts";
import { badDomainId, mapRefusedByDevice, partOfMapping } from "./errors.ts";
import { type Mapping, Mappings } from "./mappings.ts";
import type { AttachedDomain, VirtioIommuUnit } from "./unit.ts";

/** What a domain of a virtio-iommu is made of. */
export interface VirtioPagingOptions {
  /** The driver of the virtio-iommu that keeps the mappings. */
  readonly unit: VirtioIommuUnit;
  /** What the device knows the domain by. Default 1. */
  readonly domainId?: number;
  /** Counted into; counters of its own unless given. */
  readonly counters?: Counters;
  /** Told of each map, unmap and request. */
  readonly observer?: Observer | undefined;
  /** Bits of a physical address. Default 52; the device does not say how many it takes. */
  readonly outputBits?: number;
  /** As the driver of Linux 7.2, its requests and its defects included. Default false. */
  readonly linuxCompatible?: boolean;
}

/** No processor has wider physical addresses. */
const PHYSICAL_BITS = 52;

/** See the head of the file. */
export class VirtioPagingDomain implements AttachedDomain {
  /** What the work in it cost. */
  readonly counters: Counters;
  /** Bytes of the smallest thing that can be mapped: the smallest page size of the unit. */
  readonly granule: number;
  /** Bits of a physical address that can be mapped. */
  readonly outputBits: number;
  /** What the device knows it by. */
  readonly domainId: number;
  /** Pages of 4 KiB in a granule. */
  protected readonly granulePages: number;
  readonly #unit: VirtioIommuUnit;
  readonly #observer: Observer | undefined;
  readonly #linuxCompatible: boolean;
  readonly #sizes: PageSizes;
  readonly #mappings = new Mappings();
  /** The device knows the domain: it has endpoints. */
  #isLive = false;

  /** @throws DmaError ERR_DMA_DOMAIN (EINVAL) */
  constructor(options: VirtioPagingOptions) {
    const { unit, observer, domainId = 1 } = options;
    if (typeof unit !== "object" || unit === null) throw domainLacks("unit", unit);
    const { pageSizes, domains } = unit.config;
    const isNumber = Number.isInteger(domainId) && domainId >= domains.first && domainId <= domains.last;
    if (!isNumber) throw badDomainId(domainId, domains.first, domains.last);
    this.#unit = unit;
    this.#observer = observer;
    this.#linuxCompatible = options.linuxCompatible ?? false;
    this.counters = options.counters ?? new Counters();
    this.domainId = domainId;
    this.outputBits = options.outputBits ?? (this.#linuxCompatible ? 64 : PHYSICAL_BITS);
    this.#sizes = new PageSizes(sizesOfBitmap(pageSizes));
    this.granulePages = 2 ** (this.#sizes.sizes[0] ?? 0);
    this.granule = this.granulePages * PAGE_SIZE;
  }

  /** What is mapped, in order of addresses; bytes. */
  get mappings(): {
    /** First address. */
    iova: number;
    /** What it reaches. */
    phys: number;
    /** How many. */
    length: number;
    /** Flags of the request that made it (virtio 1.3, 5.13.6.6). */
    flags: number;
  }[] {
    return [...this.#mappings].map(({ page, phys, pages, flags }) => ({
      iova: page * PAGE_SIZE,
      phys: phys * PAGE_SIZE,
      length: pages * PAGE_SIZE,
      flags,
    }));
  }

  // What the unit says.

  /** The device begins to know the domain: it is told of all that is mapped. */
  endpointsCame(): void {
    this.#isLive = true;
    for (const mapping of this.#mappings) this.#request(mapping);
  }

  /** The device has forgotten the domain, and all that was mapped. */
  endpointsLeft(): void {
    this.#isLive = false;
  }

  // Mapping.

  /**
   * Makes `pages` from `page` reach physical memory from `phys` on; the device knows of it after {@link sync}.
   *
   * Cost: one request, or with `linuxCompatible` one for each page size.
   * @throws DmaError ERR_DMA_MAP (EADDRINUSE, ERANGE, ENXIO, EINVAL); nothing is mapped then
   */
  map(page: IovaPage, phys: PhysPage, pages: number, prot: number): void {
    const flags =
      (prot & READ ? MAP_FLAG.read : 0) | (prot & WRITE ? MAP_FLAG.write : 0) | (prot & MMIO ? MAP_FLAG.mmio : 0);
    const error = this.#check(page, phys, pages, flags);
    if (error !== 0) {
      this.#observer?.mapped?.(page * PAGE_SIZE, phys * PAGE_SIZE, 0, prot);
      this.#observer?.unmapped?.(page * PAGE_SIZE, 0, 0);
      throw mapRefused(error, { page, phys, pages, mappedPages: 0 });
    }
    if (this.#linuxCompatible)
      for (let done = 0; done < pages; ) {
        const lg = this.#sizes.best(page + done, phys + done, pages - done);
        const count = this.#sizes.count(lg, page + done, phys + done, pages - done);
        this.#add((page + done) as IovaPage, (phys + done) as PhysPage, 2 ** lg, count, flags);
        done += count * 2 ** lg;
      }
    else this.#add(page, phys, pages, 1, flags);
    this.#observer?.mapped?.(page * PAGE_SIZE, phys * PAGE_SIZE, pages * PAGE_SIZE, prot);
  }

  /**
   * The device knows of everything that was mapped: needed once after the last map.
   *
   * Cost: one notification of the device for all requests that wait.
   * @throws DmaError ERR_DMA_MAP (ENOMEM and others) if the device refused something in the range: all of it is unmapped then.
   * Never with `linuxCompatible`.
   */
  sync(page: IovaPage, pages: number): void {
    this.counters.mapSyncs++;
    this.#observer?.mapSynced?.(page * PAGE_SIZE, pages * PAGE_SIZE);
    this.#unit.flush();
    if (this.#linuxCompatible) return;
    for (const mapping of this.#within(page, pages)) {
      const { status } = mapping;
      if (status === undefined || status === STATUS.ok) continue;
      this.#remove(mapping); // the device has it not
      this.unmapNow(page, pages);
      throw mapRefusedByDevice(mapping.page, mapping.phys, mapping.pages, status);
    }
  }

  /** The physical page that `page` reaches; -1 if none. */
  lookup(page: IovaPage): PhysPage | -1 {
    const found = this.#mappings.meeting(page, 1);
    return found ? ((found.phys + page - found.page) as PhysPage) : -1;
  }

  /** @throws DmaError ERR_DMA_SPLIT (EOPNOTSUPP) if a mapping reaches out of the pages; nothing is changed */
  isolate(page: IovaPage, pages: number): void {
    for (const edge of [page, page + pages - 1]) {
      const mapping = this.#mappings.meeting(edge, 1);
      if (mapping && (mapping.page < page || mapping.page + mapping.pages > page + pages))
        throw partOfMapping(page, pages, mapping);
    }
  }

  /** Unmaps, and the device has forgotten it when this returns, in lazy mode too. The addresses stay reserved. Pages. */
  unmapNow(page: IovaPage, pages: number): number {
    const unmapped = this.unmapLater(page, pages);
    if (unmapped > 0) this.invalidate(page, unmapped);
    return unmapped;
  }

  /** Unmaps; the device forgets it at the next sync, unmap or flush. Pages. */
  unmapLater(page: IovaPage, pages: number): number {
    const unmapped = this.#linuxCompatible ? this.#unmapAsLinux(page, pages) : this.#unmapWhole(page, pages);
    this.#observer?.unmapped?.(page * PAGE_SIZE, pages * PAGE_SIZE, unmapped * PAGE_SIZE);
    return unmapped;
  }

  /** The device has forgotten what was unmapped when this returns: [`page`, + `pages`) was the last of it. */
  invalidate(page: IovaPage, pages: number): void {
    this.counters.rangeInvalidations++;
    this.#observer?.iotlbSynced?.(page * PAGE_SIZE, (page + pages) * PAGE_SIZE - 1, true);
    this.#unit.flush();
  }

  /**
   * Unmaps what is mapped of [`first`, + `span`), of which not everything is, and the device has forgotten it when this
   * returns: one invalidation for all of it. Pages.
   */
  unmapSparse(first: IovaPage, span: number): number {
    let unmapped = 0;
    for (let at: number = first; at < first + span; ) {
      const found = this.#mappings.meeting(at, first + span - at);
      if (!found) break;
      at = Math.max(found.page, at);
      const pages = this.unmapLater(at as IovaPage, this.#linuxCompatible ? first + span - at : found.pages);
      unmapped += pages;
      at += Math.max(pages, this.granulePages);
    }
    if (unmapped > 0) this.invalidate(first, span);
    return unmapped;
  }

  /** Everything that was unmapped is forgotten by the device. */
  invalidateAll(): void {
    this.counters.domainInvalidations++;
    this.#observer?.domainInvalidated?.();
    this.#unit.flush();
  }

  /** The domain ends, with all that is mapped: nothing may be attached to it any more. */
  destroy(): void {
    this.invalidateAll();
    this.counters.leavesCleared += this.#mappings.count;
    this.#mappings.clear();
  }

  /** 0, or why the mapping cannot be, as a negative errno. */
  #check(page: number, phys: number, pages: number, flags: number): number {
    const isWhole = (value: number): boolean => Number.isInteger(value / this.granulePages);
    if (!isWhole(page) || !isWhole(phys) || !isWhole(pages) || pages < 1)
      return this.#linuxCompatible ? -ERRNO.EINVAL : -ERRNO.ENXIO;
    if ((flags & MAP_FLAG.mmio) !== 0 && !this.#unit.config.mmio) return -ERRNO.EINVAL;
    if (this.#linuxCompatible) return 0;
    if ((flags & (MAP_FLAG.read | MAP_FLAG.write)) === 0) return -ERRNO.EINVAL;
    if ((phys + pages) * PAGE_SIZE > 2 ** this.outputBits || page + pages - 1 > this.#unit.config.lastPage)
      return -ERRNO.ERANGE;
    return this.#mappings.meeting(page, pages) ? -ERRNO.EADDRINUSE : 0;
  }

  #add(page: IovaPage, phys: PhysPage, pagesEach: number, count: number, flags: number): void {
    const mapping: Mapping = { page, phys, pages: pagesEach * count, flags, status: undefined };
    this.#observer?.mapRequested?.(page * PAGE_SIZE, phys * PAGE_SIZE, pagesEach * PAGE_SIZE, count);
    this.#mappings.add(mapping);
    this.counters.leavesWritten++;
    if (this.#isLive) this.#request(mapping);
  }

  #request(mapping: Mapping): void {
    const { page, pages, phys, flags } = mapping;
    const last = (page + pages - 1) as IovaPage;
    this.#unit.add({ type: "map", domain: this.domainId, first: page, last, phys, flags }, mapping);
  }

  #remove(mapping: Mapping): void {
    this.#mappings.remove(mapping);
    this.counters.leavesCleared++;
  }

  #forget(page: number, pages: number): void {
    if (!this.#isLive) return;
    const [first, last] = [page as IovaPage, (page + pages - 1) as IovaPage];
    this.#unit.add({ type: "unmap", domain: this.domainId, first, last });
  }

  /** Takes out every mapping that lies in the range; what reaches out stays, whole. */
  #unmapWhole(page: number, pages: number): number {
    const found = this.#within(page, pages).filter(
      (mapping) => mapping.page >= page && mapping.page + mapping.pages <= page + pages,
    );
    let unmapped = 0;
    let [first, end] = [0, 0];
    for (const mapping of found) {
      this.#remove(mapping);
      if (unmapped === 0) first = mapping.page;
      end = mapping.page + mapping.pages;
      unmapped += mapping.pages;
    }
    if (unmapped === 0) return 0;
    this.#observer?.unmapRequested?.(first * PAGE_SIZE, (end - first) * PAGE_SIZE, 1);
    this.#forget(first, end - first);
    return unmapped;
  }

  /** In rounds of one page size; each takes out what begins in its range, and must find as much as it asked for. */
  #unmapAsLinux(page: number, pages: number): number {
    let unmapped = 0;
    while (unmapped < pages) {
      const at = page + unmapped;
      const lg = this.#sizes.best(at, at, pages - unmapped);
      if (lg < 0) break;
      const count = this.#sizes.count(lg, at, at, pages - unmapped);
      const asked = count * 2 ** lg;
      this.#observer?.unmapRequested?.(at * PAGE_SIZE, 2 ** lg * PAGE_SIZE, count);
      let removed = 0;
      for (let each = this.#mappings.meeting(at, asked); each; each = this.#mappings.meeting(at, asked)) {
        if (each.page < at) break;
        this.#remove(each);
        removed += each.pages;
      }
      if (removed < asked) break; // and the device is not told
      this.#forget(at, removed);
      unmapped += removed;
    }
    return unmapped;
  }

  /** Mappings that have pages of the range. */
  #within(page: number, pages: number): Mapping[] {
    const found: Mapping[] = [];
    for (let at = page; at < page + pages; ) {
      const mapping = this.#mappings.meeting(at, page + pages - at);
      if (!mapping) break;
      found.push(mapping);
      at = mapping.page + mapping.pages;
    }
    return found;
  }
}
