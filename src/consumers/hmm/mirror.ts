/**
 * A mirror: a range of a process that a device follows, with its DMA map, from the first fault to the last invalidation.
 *
 * Idea: the whole protocol stands here once, since it is easy to get wrong. Pages are looked up into a second set of words,
 * not into the mirror's own; only when the range is known not to have changed meanwhile are they merged, mapped and shown
 * to the device, all without a stop in between. An invalidation takes the device's entries away first, the DMA mappings
 * after, and forgets the pages last.
 * Promises: the device never sees a page that the process has lost; two faults and an invalidation may come in any order, and no
 * mapping is lost or kept. A page that moves away and comes back lies at the same address.
 * Not for: what a device does with addresses: its driver's two functions say that.
 * Specified by: behaviour of Linux 7.2 (the protocol of hmm_range_fault with mmu_interval_notifier; on-demand memory regions).
 */
import { assert, type DmaAddr, PAGE_SIZE } from "../../base/index.ts";
import type { Dma } from "../../dma/index.ts";
import {
  finish,
  type IntervalNotifier,
  type Invalidation,
  type MemoryOwner,
  type Steps,
  UserAddr,
  type UserMemory,
} from "../../platform/index.ts";
import { HmmDmaMap } from "./dma-map.ts";
import { mirrorClosed, missedInvalidation, rangeBusy } from "./errors.ts";
import { rangeFault } from "./range-fault.ts";
import { HMM, PfnWords } from "./words.ts";

/** What the driver of a mirroring device does. Neither may stop: both run while the mirror has the range for itself. */
export interface MirrorDriver {
  /** Pages from `index` on are there: the device may use these addresses. NaN: no page. `words` says who may write. */
  show(index: number, addresses: Float64Array, words: PfnWords): void;
  /** The device uses pages [first, end) no more when this returns: entries cleared, its TLB flushed, accesses over. */
  hide(first: number, end: number): void;
}

/** Which part of a process is mirrored, for whom. */
export interface MirrorOptions {
  /** The address space of the process whose range is mirrored. */
  readonly memory: UserMemory;
  /** The device that mirrors. */
  readonly dma: Dma;
  /** Writes and clears the device's own entries. */
  readonly driver: MirrorDriver;
  /** Whole pages. */
  readonly start: UserAddr;
  /** Length of the range, pages of 4 KiB. */
  readonly pages: number;
  /** The device's own memory need not come back for it. */
  readonly owner?: MemoryOwner;
  /** One invalidation of the IOMMU for all pages of an event, and one sync for all of a fault. True unless said; Linux 7.2: each page. */
  readonly batched?: boolean;
}

/** Rounds that a fault takes before it gives up: Linux has a second. */
const MOST_ROUNDS = 1000;

/** The fault has pages looked up, and has not yet asked whether they are still true. */
export const LOOKED_UP = "pages are looked up";

/**
 * A device's own table of a process's pages, kept true: what the process changes leaves the table before it changes.
 */
export class Mirror implements Disposable {
  /** First address that is mirrored. */
  readonly start: UserAddr;
  /** Pages of 4 KiB from there on. */
  readonly pages: number;
  /** The range's mapping for the device. */
  readonly map: HmmDmaMap;
  /** What was done since the start. */
  readonly counts: {
    /** Rounds that had to be begun again, because the range changed meanwhile. */
    retries: number;
    /** Pages that were taken from the device. */
    invalidated: number;
    /** Pages that were newly mapped. */
    mapped: number;
  } = { retries: 0, invalidated: 0, mapped: 0 };
  readonly #memory: UserMemory;
  readonly #driver: MirrorDriver;
  readonly #owner: MemoryOwner | undefined;
  readonly #batched: boolean;
  readonly #notifier: IntervalNotifier;
  #closed = false;

  /** @throws DmaError as {@link HmmDmaMap}; ERR_DMA_USER_RANGE (EINVAL), ERR_DMA_USER_GONE (EFAULT); nothing is left then */
  constructor(options: MirrorOptions) {
    const { memory, dma, driver, start, pages, owner, batched = true } = options;
    this.start = start;
    this.pages = pages;
    this.#memory = memory;
    this.#driver = driver;
    this.#owner = owner;
    this.#batched = batched;
    this.map = new HmmDmaMap({ dma, pages });
    const end = UserAddr(start + pages * PAGE_SIZE);
    try {
      this.#notifier = memory.watch(start, end, (invalidation) => this.#invalidate(invalidation), owner);
    } catch (error) {
      this.map.free();
      throw error;
    }
  }

  /**
   * The device needs pages [first, first + count): brings, maps and shows them.
   *
   * @throws DmaError ERR_DMA_HMM_FAULT (EFAULT), ERR_DMA_HMM_READ_ONLY (EPERM), ERR_DMA_HMM_BUSY (EBUSY), ERR_DMA_RELEASED (EINVAL);
   *   and as {@link HmmDmaMap.map}; what was shown before stays
   */
  fault(first: number, count: number, write: boolean): void {
    finish(this.faultSteps(first, count, write));
  }

  /** As {@link Mirror.fault}, in steps: other steps of the machine may run between them. */
  *faultSteps(first: number, count: number, write: boolean): Steps<void> {
    const found = new PfnWords(count);
    const addresses = new Float64Array(count);
    for (let round = 0; round < MOST_ROUNDS; round++) {
      if (this.#closed) throw mirrorClosed();
      const sequence = this.#notifier.readBegin();
      const isWhole = yield* rangeFault({
        memory: this.#memory,
        notifier: this.#notifier,
        sequence,
        start: UserAddr(this.start + first * PAGE_SIZE),
        end: UserAddr(this.start + (first + count) * PAGE_SIZE),
        words: found,
        ask: HMM.valid | (write ? HMM.write : 0),
        ...(this.#owner && { owner: this.#owner }),
      });
      yield LOOKED_UP;
      // From here to the return nothing else runs: what is asked now is still true when the device is told.
      if (this.#closed) throw mirrorClosed();
      if (isWhole && !this.#notifier.retry(sequence)) {
        this.#merge(first, count, found);
        this.#mapAll(first, count, addresses);
        this.#driver.show(first, addresses, this.map.words);
        return;
      }
      this.counts.retries++;
    }
    throw rangeBusy(MOST_ROUNDS);
  }

  /** Takes everything from the device and follows the range no more. A second time does nothing. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#notifier.remove();
    this.#drop(0, this.pages);
    this.map.free();
  }

  /** As `close`, for `using`. */
  [Symbol.dispose](): void {
    this.close();
  }

  /** What was found becomes what is known. A page that is mapped must be the same page: else an invalidation was missed. */
  #merge(first: number, count: number, found: PfnWords): void {
    const { words } = this.map;
    for (let i = 0; i < count; i++) {
      const index = first + i;
      const page = found.page(i);
      if (words.has(index, HMM.dmaMapped) && words.page(index) !== page)
        throw missedInvalidation(index, words.page(index), page);
      words.put(index, found.flags[i]!, page);
    }
  }

  /** Maps what lies in memory of the system; what lies in the device's own has no address on the bus. */
  #mapAll(first: number, count: number, into: Float64Array): void {
    for (let i = 0; i < count; ) {
      const start = i;
      const isOwn = this.#isOwn(first + i);
      while (i < count && this.#isOwn(first + i) === isOwn && (this.#batched || i === start)) i++;
      const part = into.subarray(start, i);
      if (isOwn) part.fill(Number.NaN);
      else this.counts.mapped += this.map.mapPages(first + start, i - start, part);
    }
  }

  #isOwn(index: number): boolean {
    return this.#owner !== undefined && this.#memory.pages.kindOf(this.map.words.page(index)) === "device-private";
  }

  #invalidate({ start, end }: Invalidation): boolean {
    const first = Math.max(0, (start - this.start) / PAGE_SIZE);
    const last = Math.min(this.pages, (end - this.start) / PAGE_SIZE);
    if (first < last) this.#drop(first, last);
    return true;
  }

  /** The device first, then the IOMMU, then what is known: in this order no moment is unsafe. */
  #drop(first: number, last: number): void {
    const { map } = this;
    this.#driver.hide(first, last);
    if (this.#batched) this.counts.invalidated += map.unmapPages(first, last - first);
    else for (let i = first; i < last; i++) if (map.unmap(i)) this.counts.invalidated++;
    for (let i = first; i < last; i++) {
      assert(!map.words.has(i, HMM.dmaMapped), `page ${i} of a mirror is forgotten while it is mapped`);
      map.words.clear(i);
    }
  }

  /** The address of a page for the device; undefined if it is not mapped. */
  addressOf(index: number): DmaAddr | undefined {
    return this.map.words.has(index, HMM.dmaMapped) ? this.map.map(index) : undefined;
  }
}
