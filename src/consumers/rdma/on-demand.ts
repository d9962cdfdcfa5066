/**
 * Memory that a device brings when it needs it: nothing is pinned, pages come by faults and go by invalidations.
 *
 * Idea: address space for the whole range is reserved at registration; a page is linked at its own offset when the device first needs
 * it. A fault looks pages up into words of its own; only when the range is known not to have changed are they merged, and whoever
 * holds the region writes them into its page list, all without a stop in between. An invalidation first has the device forget,
 * then unmaps, then forgets the pages: in this order no moment is unsafe.
 * Promises: the device never reaches a page that the process has lost. A page that is mapped costs nothing to map again, nor does a
 * right to write that comes later. A failed fault leaves what was there.
 * Not for: page lists and keys (region.ts).
 * Specified by: behaviour of Linux 7.2 ib_umem_odp; judged by test/golden (umem). Linux walks right into the region's words, and counts
 * them by 4 KiB where the map counts huge pages: only with `linuxCompatible`.
 */
import { assert, type DmaAddr, PAGE_SIZE } from "../../base/index.ts";
import type { Dma } from "../../dma/index.ts";
import {
  finish,
  type IntervalNotifier,
  type Invalidation,
  type Steps,
  USER_END,
  UserAddr,
  type UserProcess,
} from "../../platform/index.ts";
import { HMM, HmmDmaMap, PfnWords, type RangeFault, RangeWalk, rangeFault } from "../hmm/index.ts";
import { badRegion, gone, outsideRegion, pageTooSmall, rangeWraps, regionBusy } from "./errors.ts";

/** Memory to follow, and for whom. */
export interface OnDemandOptions {
  /** Whose memory. */
  readonly process: UserProcess;
  /** First byte, in the process; rounded down to a whole page of the region. */
  readonly address: number;
  /** Bytes; the end is rounded up to a whole page of the region. */
  readonly length: number;
  /** Bytes of a page of the region: 4096 unless said, or 2 MiB. */
  readonly pageBytes?: number;
  /** The front door of the device; without one it is software, and nothing is mapped. */
  readonly dma?: Dma;
  /**
   * The device forgets pages [first, end) of the region: when this returns it uses them no more. Called before they are unmapped,
   * and only if some of them are known.
   */
  readonly forget: (first: number, end: number) => void;
  /** Hears of every invalidation, before anything else: for reports. */
  readonly heard?: (invalidation: Invalidation) => void;
  /** An invalidation has left nothing mapped. */
  readonly emptied?: () => void;
  /** One invalidation of the IOMMU for all pages of an event. True unless said; Linux 7.2: each page. */
  readonly batched?: boolean;
  /** Words as Linux keeps and fills them. As the device's unless said. */
  readonly linuxCompatible?: boolean;
}

/** How a fault goes about it. */
export interface FaultOptions {
  /** The device is going to write. */
  readonly write: boolean;
  /** Pages that are absent are left out, and nothing is brought. False unless said. */
  readonly presentOnly?: boolean;
}

/** Of one's own, to be filled in. */
type Filled<T> = { -readonly [K in keyof T]: T[K] };

/** End of all addresses. */
const ADDRESS_END = 2 ** 64;
const HUGE = 2 ** 21;
/** Rounds that a fault takes before it gives up: Linux has a second. */
const MOST_ROUNDS = 1000;

/** The fault has pages looked up, and has not yet asked whether they are still true. */
export const PAGES_FOUND = "pages of a region are looked up";

/**
 * A range of a process that one device follows. Its pages are counted from its start, in `pageBytes`.
 */
export class OnDemandMemory implements Disposable {
  /** First byte, as it was asked for. */
  readonly address: number;
  /** How many bytes, as it was asked for. */
  readonly length: number;
  /** Rounded to whole pages. */
  readonly start: number;
  /** Bytes of a page of the region: 4096, or 2 MiB. */
  readonly pageBytes: number;
  /** Pages of the region. */
  readonly pages: number;
  /** Known pages, by index; of a region of huge pages one word each (with `linuxCompatible` one for each 4 KiB). */
  readonly words: PfnWords;
  /** What was done since the start. */
  readonly counts: {
    /** Calls of {@link fault}, in either form. */
    faults: number;
    /** Rounds that had to be begun again, because the range changed meanwhile. */
    retries: number;
    /** Pages that were newly mapped. */
    mapped: number;
    /** Pages that were taken from the device. */
    invalidated: number;
  } = {
    faults: 0,
    retries: 0,
    mapped: 0,
    invalidated: 0,
  };
  readonly #process: UserProcess;
  readonly #map: HmmDmaMap | undefined;
  readonly #notifier: IntervalNotifier | undefined;
  readonly #forget: (first: number, end: number) => void;
  readonly #heard: ((invalidation: Invalidation) => void) | undefined;
  readonly #emptied: (() => void) | undefined;
  readonly #batched: boolean;
  /** As Linux: words are counted by 4 KiB, and a walk writes right into them. */
  readonly #isLinux: boolean;
  /** For faults whose pages are there: used again and again. */
  readonly #walk = new RangeWalk();
  #scratch: PfnWords | undefined;
  #request: Filled<RangeFault> | undefined;
  #mapped = 0;
  #released = false;

  /**
   * @throws DmaError ERR_DMA_RDMA_RANGE (EOVERFLOW, EINVAL); as {@link HmmDmaMap}, which refuses devices that would have to copy
   *   (EOPNOTSUPP); ERR_DMA_USER_RANGE, ERR_DMA_USER_GONE (EFAULT); nothing is left then
   */
  constructor(options: OnDemandOptions) {
    const { process, address, length, pageBytes = PAGE_SIZE, dma, forget, heard, emptied, batched = true } = options;
    if (pageBytes !== PAGE_SIZE && pageBytes !== HUGE)
      throw badRegion(address, length, `pages of ${pageBytes} bytes: 4 KiB or 2 MiB are possible`);
    if (!(address >= 0 && length >= 0) || Math.ceil((address + length) / pageBytes) * pageBytes >= ADDRESS_END)
      throw rangeWraps(address, length);
    this.start = Math.floor(address / pageBytes) * pageBytes;
    this.pages = Math.ceil((address + length - this.start) / pageBytes);
    if (length === 0 || this.pages === 0) throw badRegion(address, length, "a region has 1 byte at least");
    this.address = address;
    this.length = length;
    this.pageBytes = pageBytes;
    this.#process = process;
    this.#forget = forget;
    this.#heard = heard;
    this.#emptied = emptied;
    this.#isLinux = options.linuxCompatible ?? dma?.device.linuxCompatible === true;
    this.#batched = batched && !this.#isLinux;
    const small = (this.pages * pageBytes) / PAGE_SIZE;
    if (dma) this.#map = new HmmDmaMap({ dma, pages: small, entryBytes: pageBytes });
    this.words = this.#map?.words ?? new PfnWords(this.#isLinux ? small : this.pages);
    const end = this.start + this.pages * pageBytes;
    try {
      this.#notifier =
        end > USER_END
          ? undefined
          : process.memory.watch(UserAddr(this.start), UserAddr(end), (what) => this.#invalidate(what));
    } catch (error) {
      this.#map?.free();
      throw error;
    }
  }

  /** Where the reservation begins; undefined where nothing is reserved. */
  get iova(): DmaAddr | undefined {
    return this.#map?.address;
  }

  /** Pages are mapped one by one, and their addresses kept in a list of 8 bytes each. */
  get hasAddressList(): boolean {
    return this.#map?.hasAddressList === true;
  }

  /** Bytes of what the driver keeps for each page: a word, and an address where nothing is reserved. */
  get listBytes(): number {
    return this.words.count * (this.hasAddressList ? 18 : 10);
  }

  /** Pages that are mapped now. */
  get mappedPages(): number {
    return this.#mapped;
  }

  /** Is page `index` known, with these {@link HMM} flags? */
  has(index: number, flag: number): boolean {
    return this.words.has(this.wordOf(index), flag);
  }

  /** Where page `index` has its word. */
  wordOf(index: number): number {
    return this.#isLinux ? (index * this.pageBytes) / PAGE_SIZE : index;
  }

  /**
   * Brings pages that hold [offset, offset + length) of the region. Offsets count from {@link start}.
   *
   * @param use called once they are known and cannot change: pages [first, first + count)
   * @returns pages of the region
   * @throws DmaError ERR_DMA_RDMA_OUTSIDE, ERR_DMA_HMM_FAULT (EFAULT), ERR_DMA_HMM_READ_ONLY (EPERM), ERR_DMA_RDMA_BUSY (EBUSY),
   *   ERR_DMA_RDMA_SMALL_PAGE (EINVAL), ERR_DMA_RELEASED (EINVAL), and what `use` throws
   */
  fault(offset: number, length: number, how: FaultOptions, use: (first: number, count: number) => void): number {
    if (this.#faultAtOnce(offset, length, how, use)) return this.#countOfPages(offset, length);
    return finish(this.faultSteps(offset, length, how, use));
  }

  /** The usual case: the process has all of the pages, and nothing is made to tell the device so. False: the long way. */
  #faultAtOnce(
    offset: number,
    length: number,
    { write, presentOnly = false }: FaultOptions,
    use: (first: number, count: number) => void,
  ): boolean {
    const { pageBytes, pages } = this;
    const notifier = this.#notifier;
    if (this.#isLinux || this.#released || !notifier) return false;
    if (!(offset >= 0 && length > 0 && offset + length <= pages * pageBytes)) return false;
    const first = Math.floor(offset / pageBytes);
    const count = this.#countOfPages(offset, length);
    const small = (count * pageBytes) / PAGE_SIZE;
    if (this.#scratch === undefined || this.#scratch.count < small) this.#scratch = new PfnWords(Math.max(16, small));
    const found = this.#scratch;
    const start = UserAddr(this.start + first * pageBytes);
    this.#request ??= { memory: this.#process.memory, notifier, sequence: 0, start, end: start, words: found };
    const request = this.#request;
    request.sequence = notifier.readBegin();
    request.start = start;
    request.end = UserAddr(start + count * pageBytes);
    request.words = found;
    request.ask = presentOnly ? 0 : HMM.valid | (write ? HMM.write : 0);
    if (!this.#walk.tryAll(request)) return false;
    this.counts.faults++;
    this.#checkOrders(found, 0, first, count);
    this.#merge(found, first, count);
    use(first, count);
    return true;
  }

  #countOfPages(offset: number, length: number): number {
    const { pageBytes } = this;
    return Math.ceil((offset + length) / pageBytes) - Math.floor(offset / pageBytes);
  }

  /** As {@link OnDemandMemory.fault}, in steps: other steps of the machine may run between them. */
  *faultSteps(
    offset: number,
    length: number,
    { write, presentOnly = false }: FaultOptions,
    use: (first: number, count: number) => void,
  ): Steps<number> {
    const { pageBytes, pages } = this;
    if (!(offset >= 0 && length > 0 && offset + length <= pages * pageBytes))
      throw outsideRegion(offset, length, pages * pageBytes);
    const first = Math.floor(offset / pageBytes);
    const count = this.#countOfPages(offset, length);
    const found = this.#isLinux ? this.words : new PfnWords((count * pageBytes) / PAGE_SIZE);
    const firstWord = this.#isLinux ? this.wordOf(first) : 0;
    this.counts.faults++;
    for (let round = 0; round < MOST_ROUNDS; round++) {
      if (this.#released) throw gone("region");
      if (!this.#notifier) throw outsideRegion(offset, length, 0);
      const sequence = this.#notifier.readBegin();
      const start = this.start + first * pageBytes;
      const isWhole = yield* rangeFault({
        memory: this.#process.memory,
        notifier: this.#notifier,
        sequence,
        start: UserAddr(start),
        end: UserAddr(start + count * pageBytes),
        words: found,
        firstWord,
        ask: presentOnly ? 0 : HMM.valid | (write ? HMM.write : 0),
      });
      yield PAGES_FOUND;
      // From here to the return nothing else runs: what is asked now is still true when the page list is written.
      if (this.#released) throw gone("region");
      if (isWhole && !this.#notifier.retry(sequence)) {
        this.#checkOrders(found, firstWord, first, count);
        if (!this.#isLinux) this.#merge(found, first, count);
        use(first, count);
        return count;
      }
      this.counts.retries++;
    }
    throw regionBusy(MOST_ROUNDS);
  }

  /**
   * The address of page `index` for the device, mapped if it was not yet; one sync. Only for {@link fault}'s `use`. A software device
   * has none.
   *
   * @throws DmaError as {@link HmmDmaMap.map}
   */
  mapPage(index: number): DmaAddr {
    const map = this.#map!;
    const before = map.words.has(index, HMM.dmaMapped);
    const address = map.map(index);
    if (!before) this.#countMapped(1);
    return address;
  }

  /**
   * The same for `count` pages from `first` on, with one sync for all; those that are not known are left out.
   *
   * @param into addresses by index from `first`; NaN for those left out
   * @throws DmaError as {@link HmmDmaMap.map}; what was mapped before stays so
   */
  mapPages(first: number, count: number, into: Float64Array): void {
    const before = this.#countOf(first, first + count);
    try {
      this.#map!.mapPages(first, count, into);
    } finally {
      this.#countMapped(this.#countOf(first, first + count) - before);
    }
  }

  /** Everything is forgotten and unmapped, and the range followed no more. A second time does nothing. */
  release(): void {
    if (this.#released) return;
    this.#released = true;
    this.#drop(0, this.pages);
    this.#notifier?.remove();
    this.#map?.free();
  }

  /** As `release`, for `using`. */
  [Symbol.dispose](): void {
    this.release();
  }

  /** A page that is mapped must be the same page, or an invalidation was missed. */
  #merge(found: PfnWords, first: number, count: number): void {
    const { words, pageBytes } = this;
    const step = pageBytes / PAGE_SIZE;
    for (let i = 0; i < count; i++) {
      const index = first + i;
      const page = found.page(i * step);
      if (words.has(index, HMM.dmaMapped))
        assert(
          words.page(index) === page,
          `page ${index} of a region is mapped, and the process has another one there`,
        );
      words.put(index, found.flags[i * step]!, page);
    }
  }

  #checkOrders(found: PfnWords, firstWord: number, first: number, count: number): void {
    const step = this.pageBytes / PAGE_SIZE;
    for (let i = 0; i < count; i++) {
      const word = firstWord + i * step;
      if (!found.has(word, HMM.valid)) continue;
      const order = found.order(word);
      if (2 ** order < step) throw pageTooSmall(first + i, order);
    }
  }

  #invalidate(what: Invalidation): boolean {
    this.#heard?.(what);
    const first = Math.max(0, Math.floor((what.start - this.start) / this.pageBytes));
    const end = Math.min(this.pages, Math.ceil((what.end - this.start) / this.pageBytes));
    const before = this.#mapped;
    if (first < end) this.#drop(first, end);
    if (before > 0 && this.#mapped === 0) this.#emptied?.();
    return true;
  }

  /** The device first, then the IOMMU, then what is known. */
  #drop(first: number, end: number): void {
    if (this.#isKnown(first, end)) this.#forget(first, end);
    const map = this.#map;
    let unmapped = 0;
    if (map && this.#batched) unmapped = map.unmapPages(first, end - first);
    else if (map) for (let i = first; i < end; i++) if (map.unmap(i)) unmapped++;
    this.counts.invalidated += unmapped;
    this.#mapped -= unmapped;
    for (let i = first; i < end; i++) this.words.clear(this.wordOf(i));
  }

  #isKnown(first: number, end: number): boolean {
    for (let i = first; i < end; i++) if (this.has(i, HMM.valid)) return true;
    return false;
  }

  #countMapped(newly: number): void {
    this.#mapped += newly;
    this.counts.mapped += newly;
  }

  #countOf(first: number, end: number): number {
    let count = 0;
    for (let i = first; i < end; i++) if (this.words.has(i, HMM.dmaMapped)) count++;
    return count;
  }
}
