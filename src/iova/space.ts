/**
 * The IOVA space of a domain as the DMA layer uses it: device limits, the 32-bit-first rule, strict and lazy freeing.
 *
 * Promises: the same addresses as Linux unless a named deviation is on; 0 means there is no room.
 * Counts: the domain counts `iovaAllocations` and `iovaFrees` (a lazy free when it is queued), the queue counts
 * `flushQueueEntries`, and whoever carries out `flushDomain` counts `domainInvalidations`.
 * Specified by: behaviour of Linux 7.2 DMA API allocation, judged by test/golden/iova (kind iova-dma).
 */

import type { Observer } from "../base/index.ts";
import type { Clock } from "../platform/index.ts";
import type { GranuleRange, IovaAllocator } from "./allocator.ts";
import { incompatibleJoin } from "./errors.ts";
import { FlushQueue } from "./flush-queue.ts";

/** What the allocator remembers of a device. */
export interface IovaDevice {
  /** Try below 4 GiB first: PCI devices, until it fails once. */
  prefer32: boolean;
  /** Last granule that the interconnect passes on; 0 = no limit. */
  readonly busLimitPfn: number;
  /** Deviation `recover32`: how many frees below 4 GiB the space had seen when `prefer32` was turned off. */
  lostAt?: number;
}

/** End of the address space, and how ranges come back. */
export interface IovaSpaceOptions<Tables> {
  /** Last granule of the aperture; no limit unless said. */
  readonly lastGranule?: number;
  /** Lazy mode; strict unless given. */
  readonly lazy?: {
    /** As in {@link FlushQueueOptions}; one ring per CPU unless said. */
    readonly variant?: "per-cpu" | "single";
    /** How many CPUs free; 1 unless said. */
    readonly cpus?: number;
    /** The CPU that frees, in [0, cpus); always 0 unless given. */
    readonly currentCpu?: () => number;
    /** Time of the flush timer. */
    readonly clock: Clock;
    /** Invalidates the whole domain's IOTLB and waits for it. Must not throw. */
    readonly flushDomain: () => void;
    /** Frees the table pages that an unmap took out; called after the flush. Must not throw. */
    readonly freeTables: (tables: Tables) => void;
  };
  /** Told of every allocation, free and queueing. */
  readonly observer?: Observer | undefined;
  /** Deviation: a free gives back what was allocated, whatever length it names. */
  readonly freeAllocatedSize?: boolean;
  /** Deviation: on exhaustion in lazy mode, flush the queue once and try again. */
  readonly flushOnExhaustion?: boolean;
  /** Deviation: reserve the regions of every device that joins, not only of the first. */
  readonly reserveEveryDevice?: boolean;
  /** Deviation: try below 4 GiB again after this many frees there. */
  readonly recover32?: number;
}

/**
 * An allocator as the DMA layer uses it: below the device's limit, PCI devices below 4 GiB first, and through a flush
 * queue in lazy mode.
 */
export class IovaSpace<Tables = unknown> {
  /** What gives out the ranges. */
  readonly domain: IovaAllocator;
  /** Lazy mode: what waits for a flush; undefined in strict mode. */
  readonly flushQueue: FlushQueue<Tables> | undefined;
  readonly #options: IovaSpaceOptions<Tables>;
  readonly #lastGranule: number;
  #joined = false;
  #freesBelow4G = 0;

  /** Takes over `domain`: nobody else allocates from it. */
  constructor(domain: IovaAllocator, options: IovaSpaceOptions<Tables> = {}) {
    this.domain = domain;
    this.#options = options;
    this.#lastGranule = options.lastGranule ?? domain.lastGranule;
    this.flushQueue =
      options.lazy &&
      new FlushQueue<Tables>({
        cpus: 1,
        currentCpu: () => 0,
        ...options.lazy,
        counters: domain.counters,
        recycle: (pfn, granules) => {
          domain.recycle(pfn, granules);
          if (options.observer !== undefined) options.observer.iovaFreed?.(pfn, granules);
        },
      });
  }

  /**
   * A device joins the domain: its reserved regions are kept out (only the first device's, as in Linux).
   *
   * @throws DmaError ERR_DMA_IOVA_GEOMETRY (EFAULT) if it needs another granule or a higher start;
   * ERR_DMA_IOVA_RESERVATION (EINVAL) if one region is wrong: then none is reserved
   */
  join(regions: readonly GranuleRange[], geometry?: { granule: number; firstGranule: number }): void {
    const { domain } = this;
    if (geometry && (geometry.granule !== domain.granule || geometry.firstGranule > domain.firstGranule))
      throw incompatibleJoin(domain, geometry);
    if (this.#joined && !this.#options.reserveEveryDevice) return;
    for (const { first: lo, last: hi } of regions) domain.checkReservation(lo, hi); // all or none
    for (const { first: lo, last: hi } of regions) domain.reserve(lo, hi);
    this.#joined = true;
  }

  /**
   * Allocates `granules` for a device that can address granules up to `limitPfn`.
   *
   * @returns first granule; 0 if there is no room
   * @throws DmaError ERR_DMA_IOVA_SIZE, ERR_DMA_IOVA_LIMIT (EINVAL)
   */
  allocate(granules: number, limitPfn: number, device: IovaDevice): number {
    const { domain } = this;
    let limit = limitPfn;
    if (device.busLimitPfn !== 0 && device.busLimitPfn < limit) limit = device.busLimitPfn;
    if (this.#lastGranule < limit) limit = this.#lastGranule;
    if (limit >= domain.dma32Pfn) {
      const { recover32 } = this.#options;
      if (recover32 !== undefined && device.lostAt !== undefined && this.#freesBelow4G - device.lostAt >= recover32) {
        device.prefer32 = true;
        delete device.lostAt;
      }
      if (device.prefer32) {
        const pfn = this.#allocate(granules, domain.dma32Pfn - 1, false);
        if (pfn !== 0) return pfn;
        device.prefer32 = false;
        if (recover32 !== undefined) device.lostAt = this.#freesBelow4G;
      }
    }
    const pfn = this.#allocate(granules, limit, true);
    if (pfn !== 0 || !this.#options.flushOnExhaustion || this.flushQueue === undefined) return pfn;
    this.flushQueue.flush();
    return this.#allocate(granules, limit, true);
  }

  #allocate(granules: number, limit: number, drainOnFailure: boolean): number {
    const pfn = this.domain.allocateFast(granules, limit, drainOnFailure);
    if (this.#options.observer !== undefined) this.#options.observer.iovaAllocated?.(granules, limit, pfn);
    return pfn;
  }

  /** Gives a range back at once: its translations are gone and invalidated. Errors as {@link IovaAllocator.freeFast}. */
  free(pfn: number, granules: number): void {
    const length = this.#lengthToFree(pfn, granules);
    this.domain.freeFast(pfn, length);
    if (this.#options.observer !== undefined) this.#options.observer.iovaFreed?.(pfn, length);
    if (pfn < this.domain.dma32Pfn) this.#freesBelow4G++;
  }

  /** Lazy mode: its translations are gone, but not yet invalidated. In strict mode the same as {@link free}. */
  queue(pfn: number, granules: number, tables?: Tables): void {
    if (this.flushQueue === undefined) {
      this.free(pfn, granules);
      return;
    }
    const length = this.#lengthToFree(pfn, granules);
    this.domain.release(pfn, length);
    if (this.#options.observer !== undefined) this.#options.observer.flushQueued?.(pfn, length);
    this.flushQueue.queue(pfn, length, tables);
    if (pfn < this.domain.dma32Pfn) this.#freesBelow4G++;
  }

  /** The end of the domain: everything queued is freed without a flush, timers stop. */
  drain(): void {
    this.flushQueue?.drain();
    this.domain.stop();
  }

  #lengthToFree(pfn: number, granules: number): number {
    return this.#options.freeAllocatedSize ? this.domain.allocatedAt(pfn) || granules : granules;
  }
}
