/**
 * The front door: DMA mapping for one device.
 *
 * Idea: three ways to make memory reachable, over one domain, so that they can be compared: one-shot ({@link Dma.map}),
 * a scatterlist ({@link Dma.mapScatterlist}), and two steps ({@link Dma.tryReserveIova}, then link and sync).
 * Promises: a failed call leaves nothing behind; what it returns gives itself back and cannot fail doing so.
 * Specified by: behaviour of Linux 7.2 DMA API; docs/two-step.md has the table of Linux names.
 */
import {
  type DmaAddr,
  type Iova,
  IovaPage,
  PAGE_SIZE,
  type PhysAddr,
  PhysPage,
  pageOffset,
  pagesOf,
} from "../base/index.ts";
import type { IommuDomain } from "../iommu/index.ts";
import type { IovaDevice } from "../iova/index.ts";
import { badAddress, badDirection, badLength, noAddressSpace } from "./errors.ts";
import { IovaRange } from "./iova-range.ts";
import { permissions } from "./permissions.ts";
import type { Direction, DmaAttributes, DmaVec, PhysVec } from "./vectors.ts";

export interface DmaLimits {
  /** Highest address that the device can emit, inclusive. */
  readonly mask?: number;
  /** Longest output segment of a scatterlist, bytes; 64 KiB unless said, as in Linux. */
  readonly maxSegmentSize?: number;
}

/** A one-shot mapping. */
export class DmaMapping implements Disposable {
  readonly address: DmaAddr;
  readonly length: number;
  readonly #release: () => void;
  #released = false;

  constructor(address: DmaAddr, length: number, release: () => void) {
    this.address = address;
    this.length = length;
    this.#release = release;
  }

  /** Takes the memory away from the device. Cannot fail; a second time does nothing. */
  unmap(): void {
    if (this.#released) return;
    this.#released = true;
    this.#release();
  }

  [Symbol.dispose](): void {
    this.unmap();
  }
}

/** A mapped scatterlist: its output segments, at most as many as its input had. */
export interface ScatterlistMapping {
  readonly segments: readonly DmaVec[];
  /** One invalidation, or one entry of the flush queue, for all of it. */
  unmap(): void;
}

export class Dma {
  readonly domain: IommuDomain;
  readonly #device: IovaDevice;
  readonly #mask: number;
  readonly #limitPage: number;
  readonly #maxSegmentSize: number;

  constructor(domain: IommuDomain, limits: DmaLimits = {}) {
    this.domain = domain;
    this.#mask = limits.mask ?? Number.MAX_SAFE_INTEGER;
    this.#limitPage = Math.floor((this.#mask + 1) / PAGE_SIZE) - 1;
    this.#maxSegmentSize = limits.maxSegmentSize ?? 65_536;
    this.#device = { prefer32: true, busLimitPfn: 0 };
  }

  /**
   * Reserves address space for `length` bytes, of which the first lies `physOffset` bytes into its page. Nothing is
   * reachable yet. `undefined` if there is no room: map each segment by itself then.
   *
   * @throws DmaError ERR_DMA_LENGTH (EINVAL)
   */
  tryReserveIova(asked: { length: number; physOffset?: number }): IovaRange | undefined {
    const inside = pageOffset(asked.physOffset ?? 0);
    checkLength(asked.length);
    const pages = pagesOf(asked.length + inside);
    const page = this.domain.reserve(pages, this.#limitPage, this.#device);
    if (page === 0) return undefined;
    return new IovaRange(this.domain, page, pages, (page * PAGE_SIZE + inside) as Iova, asked.length);
  }

  /**
   * Maps `length` bytes at `phys` in one shot: reserves and links and syncs.
   *
   * @throws DmaError ERR_DMA_LENGTH, ERR_DMA_ADDRESS, ERR_DMA_DIRECTION (EINVAL), ERR_DMA_IOVA_EXHAUSTED (ENOMEM), ERR_DMA_MAP
   */
  map(phys: PhysAddr, length: number, direction: Direction, attributes?: DmaAttributes): DmaMapping {
    checkLength(length);
    checkAddress(phys);
    checkDirection(direction);
    const { domain } = this;
    const inside = pageOffset(phys);
    const pages = pagesOf(length + inside);
    const page = this.#reserve(pages);
    try {
      domain.map(page, PhysPage.of(phys), pages, permissions(direction, attributes));
    } catch (error) {
      domain.release(page, 0, pages);
      throw error;
    }
    domain.sync(page, pages);
    return new DmaMapping(
      (page * PAGE_SIZE + inside) as DmaAddr,
      length,
      () => void domain.release(page, pages, pages),
    );
  }

  /**
   * Maps a scatterlist: one range for all entries, physically adjacent ones mapped together; output segments are joined
   * where the pages allow it and they stay within the device's longest segment.
   *
   * @throws DmaError as {@link map}
   */
  mapScatterlist(list: readonly PhysVec[], direction: Direction, attributes?: DmaAttributes): ScatterlistMapping {
    const { domain } = this;
    let total = 0;
    for (const { phys, length } of list) {
      checkLength(length);
      checkAddress(phys);
      total += pagesOf(pageOffset(phys) + length);
    }
    if (total === 0) throw badLength(0);
    checkDirection(direction);
    const first = this.#reserve(total);
    const prot = permissions(direction, attributes);
    let mapped = 0;
    try {
      for (let i = 0; i < list.length; ) {
        const start = PhysPage.of(list[i]!.phys);
        let pages = 0;
        do {
          const { phys, length } = list[i++]!;
          pages += pagesOf(pageOffset(phys) + length);
        } while (i < list.length && PhysPage.of(list[i]!.phys) === start + pages);
        domain.map(IovaPage.add(first, mapped), start, pages, prot);
        mapped += pages;
      }
    } catch (error) {
      if (mapped > 0) domain.unmapNow(first, mapped);
      domain.release(first, 0, total);
      throw error;
    }
    domain.sync(first, total);
    const segments = this.#segments(list, first);
    let released = false;
    return {
      segments,
      unmap: () => {
        if (!released) domain.release(first, total, total);
        released = true;
      },
    };
  }

  #segments(list: readonly PhysVec[], first: IovaPage): DmaVec[] {
    const segments: { address: DmaAddr; length: number }[] = [];
    let page: number = first;
    let endsOnPage = false;
    for (const { phys, length } of list) {
      const inside = pageOffset(phys);
      const last = segments.at(-1);
      if (last && inside === 0 && endsOnPage && last.length + length <= this.#maxSegmentSize) last.length += length;
      else segments.push({ address: (page * PAGE_SIZE + inside) as DmaAddr, length });
      page += pagesOf(inside + length);
      endsOnPage = pageOffset(inside + length) === 0;
    }
    return segments;
  }

  #reserve(pages: number): IovaPage {
    const page = this.domain.reserve(pages, this.#limitPage, this.#device);
    if (page === 0) throw noAddressSpace(pages * PAGE_SIZE, this.#mask);
    return page;
  }
}

function checkLength(length: number): void {
  if (!(Number.isSafeInteger(length) && length > 0)) throw badLength(length);
}

function checkAddress(phys: number): void {
  if (!(Number.isSafeInteger(phys) && phys >= 0)) throw badAddress(phys);
}

function checkDirection(direction: Direction): void {
  if (permissions(direction) === 0) throw badDirection(direction);
}
