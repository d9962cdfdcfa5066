/**
 * Shared virtual memory: a GPU that uses the addresses of a process, any of them, without being told before.
 *
 * Idea: a page fault makes a range: its pages are moved to the GPU's memory if that is wanted, looked up, mapped and given to the GPU; what changes
 * meanwhile makes it begin again. What the process unmaps is taken from the GPU at once and its range is dead; a collector takes dead ranges away
 * before the next fault. Where a range has its address space is a policy: its own chunk, a place in the reservation of its area, or as in Linux 7.2.
 * Promises: the GPU never reaches a page that the process has lost, nor one that is on its way. A fault that cannot be served leaves what
 * was there, and says why. Migration is tried, never required.
 * Not for: user pointers (user-pointer.ts). Specified by: behaviour of Linux 7.2 drm_gpusvm; the policies besides `linux-7.2` and partial
 * invalidation are this project's.
 */
import { DmaError, MiB, PAGE_SIZE } from "../../base/index.ts";
import {
  finish,
  type Invalidation,
  type Steps,
  UserAddr,
  type UserArea,
  type UserMemory,
} from "../../platform/index.ts";
import { AreaPages } from "./area-pages.ts";
import type { BackingOptions, PageBacking } from "./backing.ts";
import { bringPages } from "./bring-pages.ts";
import { chooseChunk, type Span } from "./chunk-choice.ts";
import {
  areaOfDevice,
  areaReadOnly,
  badWindow,
  noArea,
  outsideWindow,
  partGone,
  processGone,
  released,
  stillChanging,
} from "./errors.ts";
import { bringDevicePagesBack, bringRangeBack } from "./evict-range.ts";
import type { GpuGroup } from "./gpu-group.ts";
import type { GpuMemory } from "./gpu-memory.ts";
import { SCRATCH_BYTES } from "./gpu-memory.ts";
import { KeptPages } from "./kept-pages.ts";
import { PackedPages } from "./packed-pages.ts";
import { isPresent } from "./residence.ts";
import { SvmNotifier } from "./svm-notifier.ts";
import { SvmRange } from "./svm-range.ts";

/** Where ranges have their address space. */
export type ReservationPolicy =
  /** Each range its own, for its life, each page at the offset of its address. */
  | "chunk"
  /** Each area one, in which all its ranges lie; areas that are too large fall back to `chunk`. */
  | "area"
  /** Each range its own, packed, at each look anew; all of it goes at any change. */
  | "linux-7.2";

/** What a GPU shares of a process, and how. */
export interface SvmOptions {
  /** Addresses [start, end) that it serves. All that a process can have, unless said. */
  readonly start?: number;
  readonly end?: number;
  /** A power of two. 512 MiB unless said. */
  readonly notifierBytes?: number;
  /** Sizes of ranges: powers of two, falling, ending in 4096. 2 MiB, 64 KiB, 4 KiB unless said. */
  readonly chunks?: readonly number[];
  /** `chunk` unless said. */
  readonly policy?: ReservationPolicy;
  /** `large` unless said: pages that lie together share entries of the IOMMU. */
  readonly leaves?: "small" | "large";
  /** The GPU's memory, if pages may be there. */
  readonly gpuMemory?: GpuMemory;
  /** Should this range be in the GPU's memory? Asked at each fault. Never unless said. */
  readonly wantsGpuMemory?: (range: { readonly start: number; readonly end: number }) => boolean;
  /** Pages of system and device, or of several allocations, in one range. Otherwise such a range is brought back to the system. False unless said. */
  readonly allowMixed?: boolean;
  /** Memory of other devices, as the process maps it. Refused unless said. */
  readonly allowPeers?: boolean;
  /** Chunks above 4 KiB and up to this size need all pages present. 0, none, unless said. */
  readonly checkPagesBytes?: number;
}

/** Rounds of a fault. */
const MOST_ROUNDS = 100;
const USER_END = 2 ** 47;

/** A process's addresses, shared with one address space of a GPU. Made by `GpuSpace.shareMemory`. */
export class SvmContext implements Disposable {
  readonly window: Span;
  readonly policy: ReservationPolicy;
  readonly #base: Pick<BackingOptions, "dma" | "table" | "memory" | "counts">;
  readonly #memory: UserMemory;
  readonly #options: Required<Pick<SvmOptions, "notifierBytes" | "chunks" | "leaves" | "allowMixed" | "allowPeers">> &
    SvmOptions;
  readonly #notifiers = new Map<number, SvmNotifier>();
  readonly #areas: AreaPages;
  readonly #garbage = new Set<SvmRange>();
  #closed = false;

  /** @throws DmaError ERR_DMA_GPU_RANGE (EINVAL) */
  constructor(base: Pick<BackingOptions, "dma" | "table" | "memory" | "counts">, options: SvmOptions = {}) {
    const { start = 0, end = USER_END, notifierBytes = 512 * MiB, policy = "chunk" } = options;
    const { chunks = [2 * MiB, 65_536, PAGE_SIZE], leaves = "large", allowMixed = false, allowPeers = false } = options;
    if (!(start >= 0 && start < end && end <= USER_END && start % PAGE_SIZE === 0 && end % PAGE_SIZE === 0))
      throw badWindow("a window from", start);
    if (!Number.isInteger(Math.log2(notifierBytes)) || notifierBytes < PAGE_SIZE)
      throw badWindow("a notifier of bytes", notifierBytes);
    const isFalling = chunks.every(
      (bytes, i) => Number.isInteger(Math.log2(bytes)) && (i === 0 || bytes < chunks[i - 1]!),
    );
    if (!isFalling || chunks.at(-1) !== PAGE_SIZE) throw badWindow("a list of chunks that ends in", chunks.at(-1) ?? 0);
    this.window = { start, end };
    this.policy = policy;
    this.#base = base;
    this.#memory = base.memory;
    this.#options = { ...options, notifierBytes, chunks, leaves, allowMixed, allowPeers };
    this.#areas = new AreaPages(() => this.#backingOptions("bidirectional"), base.dma.device.mask + 1);
  }

  /** All ranges, by notifier. */
  get ranges(): SvmRange[] {
    return [...this.#notifiers.values()].flatMap(({ ranges }) => [...ranges.values()]);
  }

  /** Notifiers that watch now. */
  get notifierCount(): number {
    return this.#notifiers.size;
  }

  /** Bytes of address space that are reserved now, and bytes of it that lead somewhere. */
  get reservation(): { readonly reservedBytes: number; readonly linkedBytes: number } {
    let [reservedBytes, linkedPages] = [0, 0];
    for (const backing of this.#backings()) {
      reservedBytes += backing.reservedBytes;
      linkedPages += backing.linkedPages;
    }
    return { reservedBytes, linkedBytes: linkedPages * PAGE_SIZE };
  }

  /**
   * The GPU needs the page at `address`.
   *
   * @throws DmaError ERR_DMA_GPU_OUTSIDE (EINVAL), ERR_DMA_USER_GONE (EFAULT), ERR_DMA_GPU_AREA (ENOENT), ERR_DMA_GPU_READ_ONLY (EPERM), ERR_DMA_GPU_IO
   *   (EIO), ERR_DMA_GPU_PEER (EOPNOTSUPP), ERR_DMA_HMM_FAULT (EFAULT), ERR_DMA_GPU_BUSY (EBUSY), ERR_DMA_MAP (ENOMEM), ERR_DMA_RELEASED (EINVAL)
   */
  fault(address: number, write: boolean): void {
    finish(this.faultSteps(address, write));
  }

  /** As {@link SvmContext.fault}, in steps: other steps of the machine may run between them. */
  *faultSteps(address: number, write: boolean): Steps<void> {
    const { counts } = this.#base;
    let only: number | undefined;
    for (let round = 0; round < MOST_ROUNDS; round++) {
      yield* this.collectGarbage();
      const range = this.#findOrInsert(address, write);
      if (range.has(address, write)) return;
      yield* this.#tryMoveIn(range);
      try {
        yield* this.#bring(range, address, write, only);
        if (range.has(address, write)) return;
      } catch (error) {
        if (!(error instanceof DmaError)) throw error;
        if (error.code === "ERR_DMA_GPU_MIXED") yield* this.evictRange(range);
        else if (error.errno !== "EFAULT" && error.errno !== "EPERM") throw error;
        else if (!range.isUnmapped) {
          // Something around it cannot be had. What has outgrown its area is chosen anew; else the page alone is brought.
          if (this.#reachesOutOfArea(range, address)) this.#retire(range);
          else if (only !== undefined || this.policy === "linux-7.2") throw error;
          else only = address;
        }
      }
      counts.retries++;
    }
    throw stillChanging(address, MOST_ROUNDS);
  }

  /** Takes dead ranges away. What is left of their addresses in the GPU's memory comes back to the system. */
  *collectGarbage(): Steps<void> {
    for (const range of this.#garbage) {
      this.#garbage.delete(range);
      if (range.isPartly && range.backing.hasDevicePages) yield* this.#bringBack(range);
      this.#remove(range);
    }
  }

  /**
   * Brings all pages of a range back to the system.
   *
   * @throws DmaError ERR_DMA_HMM_FAULT (EFAULT), ERR_DMA_GPU_BUSY (EBUSY)
   */
  *evictRange(range: SvmRange): Steps<void> {
    const notifier = this.#notifiers.get(this.#notifierIndex(range.start));
    if (notifier) yield* bringRangeBack(this.#memory, notifier.watch, range.start, range.end);
  }

  /** The GPU loses everything, and nothing is watched any more. A second time does nothing. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const range of this.ranges) if (range.isOwn) range.backing.release();
    this.#areas.release();
    for (const { watch } of this.#notifiers.values()) watch.remove();
    this.#notifiers.clear();
    this.#garbage.clear();
  }

  /** As `close`, for `using`. */
  [Symbol.dispose](): void {
    this.close();
  }

  get #group(): GpuGroup | undefined {
    return this.#options.gpuMemory?.group;
  }

  *#bringBack(range: SvmRange): Steps<void> {
    const group = this.#group;
    if (group) yield* bringDevicePagesBack(this.#memory, group, range.start, range.end);
  }

  *#tryMoveIn(range: SvmRange): Steps<void> {
    const { gpuMemory, wantsGpuMemory } = this.#options;
    const area = this.#memory.areaAt(UserAddr(range.start));
    if (!gpuMemory || area?.kind !== "anonymous" || !wantsGpuMemory?.(range)) return;
    const { counts } = this.#base;
    try {
      const moved = yield* gpuMemory.moveIn(this.#memory, range.start, range.end);
      counts.migratedIn += moved;
      counts.scratchBytes += moved > 0 ? range.pages * SCRATCH_BYTES : 0;
    } catch (error) {
      if (!(error instanceof DmaError)) throw error; // it stays where it is, and is used there
    }
  }

  *#bring(range: SvmRange, address: number, write: boolean, only: number | undefined): Steps<void> {
    const notifier = this.#notifiers.get(this.#notifierIndex(range.start));
    if (!notifier) throw released("range");
    const area = this.#memory.areaAt(UserAddr(address));
    yield* bringPages({
      memory: this.#memory,
      notifier: notifier.watch,
      backing: range.backing,
      counts: this.#base.counts,
      first: range.first,
      count: range.pages,
      // Linux 7.2 asks to write whatever the area allows; here what the GPU does, so that pages of zeros and of forks stay shared.
      write: this.policy === "linux-7.2" ? area?.writable === true : write,
      ...(only !== undefined && { only: Math.floor((only - range.backing.start) / PAGE_SIZE) }),
      owner: this.#group,
      check: () => {
        if (this.#closed) throw released("context");
        if (range.isUnmapped) throw partGone(range.start);
      },
    });
  }

  #findOrInsert(address: number, write: boolean): SvmRange {
    const { start, end } = this.window;
    if (this.#closed) throw released("context");
    if (!(address >= start && address < end)) throw outsideWindow(address, start, end);
    if (this.#memory.isGone) throw processGone();
    const area = this.#memory.areaAt(UserAddr(address));
    if (!area) throw noArea(address);
    if (area.kind === "io") throw areaOfDevice(address);
    if (write && !area.writable) throw areaReadOnly(address);
    const notifier = this.#notifierAt(address);
    const before = notifier.rangeAt(address);
    if (before) return before;
    try {
      return this.#insert(notifier, area, address);
    } finally {
      this.#trimNotifier(notifier);
    }
  }

  #insert(notifier: SvmNotifier, area: UserArea, address: number): SvmRange {
    const { chunks, checkPagesBytes = 0 } = this.#options;
    const kept = this.policy === "area" ? this.#areas.for(area, address, this.window) : undefined;
    const { start, end } = chooseChunk({
      address,
      chunks,
      within: [area, notifier, this.window, ...(kept ? [spanOf(kept)] : [])],
      overlaps: (from, to) => notifier.overlaps(from, to),
      checkPagesBytes,
      isPresent: (from, to) => isPresent(this.#memory, from, to),
    });
    const range = new SvmRange(start, end, kept ?? this.#ownPages(start, end, area.writable), kept === undefined);
    notifier.ranges.set(start, range);
    return range;
  }

  #ownPages(start: number, end: number, writable: boolean): PageBacking {
    const options: BackingOptions = {
      ...this.#backingOptions(writable || this.policy !== "linux-7.2" ? "bidirectional" : "to-device"),
      start,
      pages: (end - start) / PAGE_SIZE,
      gpuPage: start / PAGE_SIZE,
    };
    return this.policy === "linux-7.2" ? new PackedPages(options) : new KeptPages(options);
  }

  #backingOptions(direction: "bidirectional" | "to-device"): Omit<BackingOptions, "start" | "pages" | "gpuPage"> {
    const { leaves, allowMixed, allowPeers, gpuMemory } = this.#options;
    return {
      ...this.#base,
      direction,
      leaves,
      allowMixed,
      allowPeers,
      ...(gpuMemory && { placeOf: (page: number) => gpuMemory.group.placeFor(gpuMemory.adapter, page) }),
    };
  }

  #notifierIndex(address: number): number {
    return Math.floor(address / this.#options.notifierBytes);
  }

  #notifierAt(address: number): SvmNotifier {
    const { notifierBytes } = this.#options;
    const index = this.#notifierIndex(address);
    const before = this.#notifiers.get(index);
    if (before) return before;
    const [start, end] = [index * notifierBytes, Math.min((index + 1) * notifierBytes, USER_END)];
    const made: SvmNotifier = new SvmNotifier(this.#memory, start, end, (what) => this.#changed(made, what));
    this.#notifiers.set(index, made);
    return made;
  }

  /** Areas were cut since the range was made. */
  #reachesOutOfArea(range: SvmRange, address: number): boolean {
    const area = this.#memory.areaAt(UserAddr(address));
    return area !== undefined && (range.start < area.start || range.end > area.end);
  }

  /** The range is dead, as if a part of it had been unmapped. */
  #retire(range: SvmRange): void {
    range.isUnmapped = true;
    range.isPartly = true;
    this.#garbage.add(range);
  }

  #remove(range: SvmRange): void {
    const notifier = this.#notifiers.get(this.#notifierIndex(range.start));
    notifier?.ranges.delete(range.start);
    if (range.isOwn) {
      range.drop({ first: 0, end: 0 });
      range.backing.release();
    } else this.#areas.trim((pages) => this.ranges.some(({ backing }) => backing === pages));
    if (notifier) this.#trimNotifier(notifier);
  }

  /** A notifier goes with its last range, unless pages of an area are still known in its span. */
  #trimNotifier(notifier: SvmNotifier): void {
    if (notifier.ranges.size > 0) return;
    for (const kept of this.#areas.kept) {
      const first = Math.max(0, (notifier.start - kept.start) / PAGE_SIZE);
      const last = Math.min(kept.pages, (notifier.end - kept.start) / PAGE_SIZE);
      if (first < last && kept.knows(first, last)) return;
    }
    notifier.watch.remove();
    this.#notifiers.delete(this.#notifierIndex(notifier.start));
  }

  /** Hears of a change before it is made. */
  #changed(notifier: SvmNotifier, { kind, start, end }: Invalidation): boolean {
    const { counts, table } = this.#base;
    counts.invalidations++;
    const event = { first: start / PAGE_SIZE, end: end / PAGE_SIZE };
    counts.touched(event.first, event.end);
    const [low, high] = [Math.max(start, notifier.start), Math.min(end, notifier.end)];
    const hit = [...notifier.ranges.values()].filter((range) => range.start < high && range.end > low);
    const isWhole = this.policy === "linux-7.2";
    const own = hit.filter(({ isOwn, isKnown }) => isOwn && isKnown);
    const spans = own.map((range) => {
      const [from, to] = isWhole ? [range.start, range.end] : [Math.max(range.start, low), Math.min(range.end, high)];
      return { page: from / PAGE_SIZE, pages: (to - from) / PAGE_SIZE };
    });
    if (spans.length > 1) table.zapAll(spans); // one invalidation of the GPU's TLB for all of them
    own.forEach(({ backing, start: base }, i) => {
      const first = spans[i]!.page - base / PAGE_SIZE;
      backing.drop(first, first + spans[i]!.pages, event);
    });
    for (const kept of this.#areas.kept) {
      const first = Math.max(0, (low - kept.start) / PAGE_SIZE);
      const last = Math.min(kept.pages, (high - kept.start) / PAGE_SIZE);
      if (first < last) kept.drop(first, last, event);
    }
    if (kind !== "unmap" && kind !== "release") return true;
    for (const range of hit) {
      range.isUnmapped = true;
      range.isPartly ||= range.start < start || range.end > end;
      this.#garbage.add(range);
    }
    return true;
  }

  *#backings(): Iterable<PageBacking> {
    for (const { isOwn, backing } of this.ranges) if (isOwn) yield backing;
    yield* this.#areas.kept;
  }
}

const spanOf = (kept: KeptPages): Span => ({ start: kept.start, end: kept.start + kept.pages * PAGE_SIZE });
