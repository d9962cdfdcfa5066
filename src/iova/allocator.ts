/**
 * An IOVA domain: one device address space in granules, and who has which part of it.
 *
 * Idea: allocation goes downward from where the last one was placed (one such *cached* place below 4 GiB, one above) and
 * takes the first size-aligned gap; if there is none it looks once more above that place. In front stands the range
 * cache. Answers equal Linux's to the page, but gaps are found by order ({@link OrderedRanges}), not by a walk.
 * Promises: no exception for exhaustion (0 means none, page 0 is never handed out); a refused call changes nothing;
 * free never fails for a range in use and never allocates memory except for a magazine, which it can do without.
 * Not for: limits of devices, bytes, lazy mode: that is `space.ts`.
 * Specified by: behaviour of Linux 7.2 IOVA allocation, judged by test/golden/iova.
 */
import { Counters } from "../base/index.ts";
import type { Clock } from "../platform/index.ts";
import {
  badAlignCap,
  badCpus,
  badGranule,
  badLargestCached,
  badLimit,
  badReservation,
  badSize,
  badStart,
  freedTooLong,
  notAllocated,
} from "./errors.ts";
import { ANCHOR, BOTTOM, fitCode, log2Ceil, log2Floor, OrderedRanges, pow2 } from "./ordered-ranges.ts";
import { LARGEST_CACHED, RangeCache } from "./range-cache.ts";

/** What a domain notes of a range: nobody uses it (cached, or queued); in use, up to 32 granules of it; all of it. */
const IDLE = 0;
const ALL = LARGEST_CACHED + 1;
const RESERVED = LARGEST_CACHED + 2;
/** No alignment is larger. */
const NO_CAP = 2 ** 53;

/** Inclusive, in granules. */
export interface GranuleRange {
  /** First granule. */
  readonly first: number;
  /** Last granule, itself included. */
  readonly last: number;
}

/** CPUs that may have magazines: as many as Linux can be built for. */
const MOST_CPUS = 8192;

/** Granule, start and caches of an allocator. */
export interface IovaAllocatorOptions {
  /** Bytes: 4096, 16384 or 65536 (any power of two between). */
  readonly granule?: number;
  /** First page that may be handed out; at least 1, the default. */
  readonly firstGranule?: number;
  /** CPUs that have magazines, at most 8192; 1 unless said. */
  readonly cpus?: number;
  /** The CPU a call runs on, below `cpus`; 0 unless said. */
  readonly currentCpu?: () => number;
  /** For trimming the depots; without one they are not trimmed. */
  readonly clock?: Clock;
  /** Counts `iovaAllocations`, `iovaFrees` (calls of the fast pair) and, with `countSteps`, `iovaSteps`. */
  readonly counters?: Counters;
  /** Count the gaps that Linux's walk would have looked at; makes tree allocations O(ranges / 16). Off unless said. */
  readonly countSteps?: boolean;
  /** Refuse the freeing of what is not in use or too long. On unless said; off, that corrupts, as it does in Linux. */
  readonly checked?: boolean;
  /** Deviation `alignCap`: granules, a power of two; larger requests are aligned to this only. None unless said. */
  readonly alignCap?: number;
  /** Deviation `largestCached`: granules, a power of two from 32 to 32768; ranges up to this are cached. 32 unless said. */
  readonly largestCached?: number;
  /** Whether there is memory for one more magazine; always, unless said. */
  readonly mayAllocateMagazine?: () => boolean;
}

/**
 * Gives out ranges of one I/O address space in granules, the highest that fits first: every address equals Linux 7.2's.
 * Release never fails or allocates.
 */
export class IovaAllocator {
  /** Bytes. */
  readonly granule: number;
  /** The first granule that is given out; none below is. */
  readonly firstGranule: number;
  /** The first page above 4 GiB. */
  readonly dma32Pfn: number;
  /** The last page that 64-bit addresses have. */
  readonly lastGranule: number;
  /** What allocating cost so far. */
  readonly counters: Counters;
  readonly #ranges = new OrderedRanges();
  readonly #cache: RangeCache;
  readonly #checked: boolean;
  readonly #currentCpu: (() => number) | undefined;
  readonly #countSteps: boolean;
  readonly #alignCap: number;
  readonly #largestCached: number;
  /** The range where the last allocation went: anywhere, and below 4 GiB. */
  #cached = ANCHOR;
  #cached32 = ANCHOR;
  #max32AllocSize: number;

  /** @throws DmaError ERR_DMA_IOVA_GRANULE, ERR_DMA_IOVA_START, ERR_DMA_IOVA_CPUS, ERR_DMA_IOVA_ALIGN_CAP, ERR_DMA_IOVA_CACHED (EINVAL) */
  constructor(options: IovaAllocatorOptions = {}) {
    const {
      granule = 4096,
      firstGranule: startPfn = 1,
      cpus = 1,
      checked = true,
      alignCap = NO_CAP,
      largestCached = LARGEST_CACHED,
    } = options;
    const granuleLog2 = typeof granule === "number" ? Math.log2(granule) : Number.NaN;
    if (!Number.isInteger(granuleLog2) || granuleLog2 < 12 || granuleLog2 > 16) throw badGranule(granule);
    this.granule = granule;
    this.lastGranule = 2 ** (64 - granuleLog2) - 1;
    if (!Number.isInteger(startPfn) || startPfn < 1 || startPfn > this.lastGranule)
      throw badStart(startPfn, this.lastGranule);
    if (!Number.isInteger(cpus) || cpus < 1 || cpus > MOST_CPUS) throw badCpus(cpus, MOST_CPUS);
    if (!(typeof alignCap === "number" && alignCap >= 1 && alignCap <= NO_CAP && Number.isInteger(Math.log2(alignCap))))
      throw badAlignCap(alignCap);
    if (typeof largestCached !== "number") throw badLargestCached(largestCached);
    if (!(largestCached >= LARGEST_CACHED && largestCached <= 32_768 && Number.isInteger(Math.log2(largestCached))))
      throw badLargestCached(largestCached);
    this.firstGranule = startPfn;
    this.dma32Pfn = 1 << (32 - granuleLog2); // "<<" gives a small integer, "**" would give a double for ever
    this.#max32AllocSize = this.dma32Pfn;
    this.counters = options.counters ?? new Counters();
    this.#checked = checked;
    this.#currentCpu = options.currentCpu;
    this.#countSteps = options.countSteps ?? false;
    this.#alignCap = alignCap;
    this.#largestCached = largestCached;
    this.#cache = new RangeCache({
      cpus,
      largest: largestCached,
      clock: options.clock,
      ranges: this.#ranges,
      freeToTree: (id) => this.#remove(id),
      mayAllocate: options.mayAllocateMagazine ?? (() => true),
    });
  }

  /**
   * Allocates through the range cache. O(1) if a range of that class is cached, else as {@link allocateTree}. Where a
   * request is larger than all the pages up to the limit, no cached range fits; Linux's unsigned limit wraps there and
   * may give a range above it, which is a defect that no driver can count on.
   *
   * @param granules 1 or more; below 32 rounded up to a power of two
   * @param limitPfn last page the range may touch
   * @param drainOnFailure on exhaustion give all cached ranges back to the tree, and try once more
   * @returns first page; 0 if there is no room
   * @throws DmaError ERR_DMA_IOVA_SIZE, ERR_DMA_IOVA_LIMIT (EINVAL)
   */
  allocateFast(granules: number, limitPfn: number, drainOnFailure: boolean): number {
    // what is wrong or long is looked at below; the rest is the shortest way to a magazine
    const short = granules >= 1 && granules <= this.#largestCached && Number.isInteger(granules);
    if (!(short && limitPfn >= 0 && Number.isInteger(limitPfn)))
      return this.#allocateOrDrain(granules, limitPfn, drainOnFailure);
    const sizeClass = 32 - Math.clz32(granules - 1);
    const size = 1 << sizeClass;
    const cpu = this.#currentCpu === undefined ? 0 : this.#currentCpu();
    const id = this.#cache.get(sizeClass, limitPfn + 1 - size, cpu);
    if (id === ANCHOR) return this.#allocateOrDrain(size, limitPfn, drainOnFailure);
    this.#ranges.setNote(id, size <= LARGEST_CACHED ? size : ALL);
    this.counters.iovaAllocations++;
    return this.#ranges.owned(id);
  }

  /**
   * Frees a range into the range cache; into the tree if it is long or there is no room. O(1), else O(log ranges).
   *
   * @param granules what was allocated, or less: then the rest is out of use until the range returns to the tree
   * @throws DmaError ERR_DMA_IOVA_NOT_ALLOCATED, ERR_DMA_IOVA_FREE_SIZE (EINVAL), in checked domains
   */
  freeFast(pfn: number, granules: number): void {
    const id = this.#ranges.ownedAt(pfn);
    if (this.#checked) this.#checkFree(id, pfn, granules);
    this.counters.iovaFrees++;
    this.#recycle(id, granules);
  }

  /**
   * First half of {@link freeFast}: nobody uses the range any more, but it may not be handed out yet (its IOTLB entries
   * may still be alive). {@link recycle} must follow.
   */
  release(pfn: number, granules: number): void {
    const id = this.#ranges.ownedAt(pfn);
    if (this.#checked) this.#checkFree(id, pfn, granules);
    this.counters.iovaFrees++;
    this.#ranges.setNote(id, IDLE);
  }

  /** Second half of {@link freeFast}: a released range may be handed out again. */
  recycle(pfn: number, granules: number): void {
    this.#recycle(this.#ranges.ownedAt(pfn), granules);
  }

  /** How many granules are in use at `pfn`; 0 if no allocation starts there. O(1). */
  allocatedAt(pfn: number): number {
    return this.#granulesInUse(this.#ranges.ownedAt(pfn));
  }

  /**
   * Allocates from the tree. O(ranges / 16) at worst, in steps of a nanosecond; nearer to where the last one went, less.
   *
   * @param sizeAligned the start is a multiple of the size rounded up to a power of two
   * @throws DmaError ERR_DMA_IOVA_SIZE, ERR_DMA_IOVA_LIMIT (EINVAL)
   */
  allocateTree(granules: number, limitPfn: number, sizeAligned: boolean): number {
    this.#checkRequest(granules, limitPfn);
    return this.#allocate(granules, limitPfn, sizeAligned);
  }

  /**
   * Frees the whole range that holds `pfn`, reservations included, to the tree. O(log ranges).
   *
   * @throws DmaError ERR_DMA_IOVA_NOT_ALLOCATED (EINVAL) if there is none; in checked domains, if it waits in a cache or
   * a queue
   */
  freeTree(pfn: number): void {
    const id = this.#ranges.holding(pfn);
    if (id === ANCHOR || (this.#checked && this.#ranges.note(id) === IDLE)) throw notAllocated(pfn);
    this.#remove(id);
  }

  /** The range that holds `pfn`, in use, reserved or cached. */
  find(pfn: number): GranuleRange | undefined {
    const id = this.#ranges.holding(pfn);
    return id === ANCHOR ? undefined : { first: this.#ranges.lo(id), last: this.#ranges.hi(id) };
  }

  /**
   * Keeps [lo, hi] (inclusive) from being handed out. What is taken already stays so: the result is the union. Cached
   * ranges are not looked at, so reserve before the first allocation.
   *
   * @returns the range that now holds the end of it
   * @throws DmaError ERR_DMA_IOVA_RESERVATION (EINVAL)
   */
  reserve(lo: number, hi: number): GranuleRange {
    this.checkReservation(lo, hi);
    const ranges = this.#ranges;
    let rest = lo;
    const below = ranges.atOrBelow(lo);
    let id = below !== BOTTOM && ranges.hi(below) >= lo ? below : ranges.atOrAbove(lo);
    while (ranges.lo(id) <= hi) {
      if (rest < ranges.lo(id)) ranges.widenDown(id, rest);
      if (hi <= ranges.hi(id)) return { first: ranges.lo(id), last: ranges.hi(id) };
      rest = ranges.hi(id) + 1;
      id = ranges.next(id);
    }
    ranges.setNote(ranges.insertBelow(id, rest, hi), RESERVED);
    return { first: rest, last: hi };
  }

  /** @throws DmaError ERR_DMA_IOVA_RESERVATION (EINVAL), if {@link reserve} would refuse it. */
  checkReservation(lo: number, hi: number): void {
    if (!(Number.isInteger(lo) && Number.isInteger(hi) && lo >= 0 && lo <= hi && hi <= this.lastGranule))
      throw badReservation(lo, hi, this.lastGranule);
  }

  /** Gives what the magazines of a CPU hold back to the tree, as when it goes offline. */
  drainCpu(cpu: number): void {
    this.#cache.drainCpu(cpu);
  }

  /** Gives all cached ranges back to the tree. */
  drainCache(): void {
    this.#cache.drain();
  }

  /** Stops all timers. */
  stop(): void {
    this.#cache.stop();
  }

  /** For tests and dumps: every taken range, where searches start, and what is cached. Costs O(ranges). */
  inspect(): {
    /** Every taken range, first and last granule, ascending. */
    ranges: (readonly [lo: number, hi: number])[];
    /** Where searches anywhere start: first granule of a taken range; undefined is the end of the address space. */
    cached: number | undefined;
    /** Where searches below 4 GiB start, likewise. */
    cached32: number | undefined;
    /**
     * Granules: a search below 4 GiB for this many or more has failed, and is not tried again before something is
     * freed there.
     */
    max32AllocSize: number;
    /** What is cached, by size class. */
    cache: {
      /** By CPU: what is in its two magazines. */
      cpus: (readonly [number[], number[]])[];
      /** Full magazines that no CPU has. */
      depot: number[][];
    }[];
  } {
    return {
      ranges: [...this.#ranges.entries()],
      cached: this.#cached === ANCHOR ? undefined : this.#ranges.lo(this.#cached),
      cached32: this.#cached32 === ANCHOR ? undefined : this.#ranges.lo(this.#cached32),
      max32AllocSize: this.#max32AllocSize,
      cache: Array.from({ length: this.#cache.classes }, (_, sizeClass) => this.#cache.contents(sizeClass)),
    };
  }

  #checkRequest(granules: number, limitPfn: number): void {
    if (!(granules >= 1 && granules <= this.lastGranule && Number.isInteger(granules)))
      throw badSize(granules, this.lastGranule);
    if (!(limitPfn >= 0 && Number.isInteger(limitPfn))) throw badLimit(limitPfn);
  }

  #allocateOrDrain(size: number, limitPfn: number, drainOnFailure: boolean): number {
    this.#checkRequest(size, limitPfn);
    let pfn = this.#allocate(size, limitPfn, true);
    if (pfn === 0 && drainOnFailure) {
      this.#cache.drain();
      pfn = this.#allocate(size, limitPfn, true);
    }
    if (pfn !== 0) this.counters.iovaAllocations++;
    return pfn;
  }

  #allocate(size: number, limitPfn: number, sizeAligned: boolean): number {
    const limit = Math.min(limitPfn, this.lastGranule) + 1; // exclusive from here on
    const below4G = limit <= this.dma32Pfn;
    if (below4G && size >= this.#max32AllocSize) return 0;
    const ranges = this.#ranges;
    const alignment = sizeAligned ? Math.min(pow2(log2Ceil(size)), this.#alignCap) : 1;
    // with full alignment the fit of a gap decides; with less, a block of at least half the size must be in it
    const fit = alignment >= size ? fitCode(size) : Math.max(0, log2Floor(size) - 1) << 5;
    const cached = below4G ? this.#cached32 : this.#cached;
    const cachedLo = ranges.lo(cached);
    const start = cachedLo <= limit ? cached : ranges.atOrAbove(limit);
    let found = ranges.search(start, Math.min(limit, cachedLo), this.firstGranule, size, alignment, fit);
    if (this.#countSteps) this.#addSteps(cached, found, limit, this.firstGranule, size, alignment);
    const retry = ranges.hi(cached);
    if (!found && retry < limit) {
      found = ranges.search(ranges.atOrAbove(limit), limit, retry + 1, size, alignment, fit);
      if (this.#countSteps) {
        const from = below4G ? ranges.atOrAbove(limit) : ANCHOR;
        this.#addSteps(from, found, limit, retry + 1, size, alignment);
      }
    }
    if (!found) {
      this.#max32AllocSize = size;
      return 0;
    }
    const lo = ranges.foundAt;
    const hi = lo + size - 1;
    const id = ranges.insertBelow(ranges.foundBelow, lo, hi);
    ranges.setNote(id, size <= LARGEST_CACHED ? size : ALL);
    if (hi < this.dma32Pfn) this.#cached32 = id;
    else this.#cached = id;
    return lo;
  }

  /** The gaps that a walk looks at: from the one under `from` to where it finds room or knows that there is none. */
  #addSteps(from: number, found: boolean, limit: number, low: number, size: number, alignment: number): void {
    const ranges = this.#ranges;
    const first = ranges.rank(from);
    let last = first;
    if (found) last = ranges.rank(ranges.foundBelow);
    else {
      // the walk ends at the first range so low that nothing above `low` fits under it
      const lowest = Math.ceil(low / alignment) * alignment + size;
      if (limit >= lowest) last = Math.min(first, Math.max(0, ranges.rank(ranges.atOrBelow(lowest - 1))));
    }
    this.counters.iovaSteps += first - last + 1;
  }

  /** The range that was freed as `granules` may be handed out again. */
  #recycle(id: number, granules: number): void {
    if (id === ANCHOR) return; // an unchecked domain was given what is no range
    this.#ranges.setNote(id, IDLE);
    const cpu = this.#currentCpu === undefined ? 0 : this.#currentCpu();
    if (!this.#cache.put(id, granules, cpu)) this.#remove(id);
  }

  #checkFree(id: number, pfn: number, granules: number): void {
    const note = this.#ranges.note(id);
    if (note === granules && granules >= 1 && granules <= LARGEST_CACHED) return; // nearly always
    const allocated = this.#granulesInUse(id);
    if (allocated === 0) throw notAllocated(pfn);
    if (!(granules >= 1 && granules <= allocated && Number.isInteger(granules)))
      throw freedTooLong(pfn, granules, allocated);
  }

  #granulesInUse(id: number): number {
    const ranges = this.#ranges;
    const note = ranges.note(id); // the anchor's is 0: nobody uses it
    return note <= LARGEST_CACHED ? note : note === ALL ? ranges.hi(id) - ranges.owned(id) + 1 : 0;
  }

  #remove(id: number): void {
    const ranges = this.#ranges;
    const lo = ranges.lo(id);
    const next = ranges.next(id);
    if (id === this.#cached32 || (ranges.hi(id) < this.dma32Pfn && lo >= ranges.lo(this.#cached32)))
      this.#cached32 = next;
    if (lo < this.dma32Pfn) this.#max32AllocSize = this.dma32Pfn;
    if (lo >= ranges.lo(this.#cached)) this.#cached = next;
    ranges.remove(id);
  }
}
