/**
 * Bounce buffers: memory that a device can reach, in place of memory that it cannot or must not.
 *
 * Idea: a mapping is copied into slots of the pool, the device works on the copy, and what it wrote is copied back when
 * the CPU asks for it. The slots remember where their bytes came from, so the address alone is enough to give them back.
 * Promises: the same slots as Linux; bytes outside the mapping are never copied out; a mapping copies in even if the
 * device only writes, so that what it leaves untouched is not replaced by somebody else's bytes; release cannot fail.
 * Not for: deciding whether a mapping must bounce, or for zeroing what lies around it: the caller knows the device.
 * Specified by: behaviour of Linux 7.2 bounce buffers; judged by test/golden/dma-api.
 */
import {
  type Counters,
  type Direction,
  deviceReads,
  deviceWrites,
  type Observer,
  type PhysAddr,
  PhysPage,
} from "../base/index.ts";
import type { PageAllocator, PhysicalMemory } from "../platform/index.ts";
import { Copier } from "./copier.ts";
import { badLength } from "./errors.ts";
import { BOUNCE_LIMIT, BOUNCE_SET, BOUNCE_SLOT, type SlotRequest, type SlotState, Slots, slotsOf } from "./slots.ts";

/** Slots of a pool when nobody says: 64 MiB. */
const BOUNCE_POOL_SLOTS = 32_768;

/** What the device asks of the place where its bytes go. */
export interface BounceLimits {
  /** Low address bits that the copy must share with the memory: a mask below 2^31. */
  readonly minAlignMask: number;
  /** No mapping may cross a multiple of this + 1. */
  readonly segmentBoundaryMask: number;
}

/** How a pool that is full goes on: by a buffer for one mapping now, and by another pool soon. */
export interface BounceGrowth {
  /** Memory that devices can reach; in a confidential guest, shared memory. */
  readonly pages: PageAllocator;
  /** Runs `work` later, outside of the mapping: the pool is added there. */
  readonly later: (work: () => void) => void;
  /** Slots of an added pool. Default 32768 (64 MiB). */
  readonly slots?: number;
  /** Last page that devices reach. Default: any. */
  readonly lastPage?: number;
}

/** Where a pool lies, how many slots it has, and whether it may grow. */
export interface BouncePoolOptions {
  /** Memory as the CPU sees it. */
  readonly memory: PhysicalMemory;
  /** Where the pool lies: whole pages that are nobody else's. */
  readonly start: PhysAddr;
  /** Slots of {@link BOUNCE_SLOT} bytes: whole sets of {@link BOUNCE_SET} in each area. */
  readonly slots: number;
  /** Parts that are searched one after the other, each with a place of its own to go on from: a power of two. Default 1. */
  readonly areas?: number;
  /** Which area is searched first. Default: the first. */
  readonly currentCpu?: () => number;
  /** Counted into, if given: `bouncedBytes`. */
  readonly counters?: Counters;
  /** Told of slots taken and freed, and of each copy. */
  readonly observer?: Observer;
  /** Default: a full pool stays full. */
  readonly grow?: BounceGrowth;
}

/** A buffer besides the pool itself, and whether it goes when its one mapping does. */
interface Extra {
  readonly slots: Slots;
  readonly page: PhysPage;
  readonly pages: number;
  readonly transient: boolean;
}

const ANY_BOUNDARY = Number.MAX_SAFE_INTEGER;

/**
 * Memory that every device can reach, for buffers that some cannot: slots of 2 KiB, with copies in and out. Slots and
 * their order equal Linux 7.2's swiotlb.
 */
export class BouncePool {
  /** Where the pool begins, bytes. */
  readonly start: PhysAddr;
  /** Slots of 2 KiB in the pool itself, without buffers that were added. */
  readonly slots: number;
  readonly #pool: Slots;
  readonly #copier: Copier;
  readonly #currentCpu: (() => number) | undefined;
  readonly #counters: Counters | undefined;
  readonly #observer: Observer | undefined;
  readonly #grow: BounceGrowth | undefined;
  #growing = false;
  #extras: Extra[] = [];
  readonly #request: SlotRequest = {
    phys: 0,
    length: 0,
    kept: 0,
    size: 0,
    alignMask: 0,
    minAlignMask: 0,
    segmentBoundaryMask: ANY_BOUNDARY,
  };

  /** @throws DmaError ERR_DMA_BOUNCE_SLOTS, ERR_DMA_BOUNCE_START (EINVAL) */
  constructor(options: BouncePoolOptions) {
    this.start = options.start;
    this.slots = options.slots;
    this.#pool = new Slots(options.start, options.slots, options.areas ?? 1);
    this.#copier = new Copier(options.memory);
    this.#currentCpu = options.currentCpu;
    this.#counters = options.counters;
    this.#observer = options.observer;
    this.#grow = options.grow;
  }

  /** Slots in use, everywhere. */
  get used(): number {
    let used = this.#pool.used;
    for (const { slots } of this.#extras) used += slots.used;
    return used;
  }

  /** Buffers besides the pool itself: added pools and those of one mapping. */
  get extraBuffers(): number {
    return this.#extras.length;
  }

  /** The slot of the first area where the next search begins. Setting it throws ERR_DMA_BOUNCE_INDEX outside the area. */
  get nextIndex(): number {
    return this.#pool.next(0);
  }

  /** Where in the first area the next search begins. */
  set nextIndex(index: number) {
    this.#pool.setNext(0, index);
  }

  /** A slot of the pool itself, for those who look. */
  slotState(slot: number): SlotState {
    return this.#pool.state(slot);
  }

  /**
   * Takes slots for [phys, + length), copies it in, and returns the address for the device; undefined if there is no room.
   *
   * @param alignMask granule - 1 if the granules must be the mapping's own (below 2^31), else 0
   * @param keepMask low bits of `phys` that the address keeps; unless given, those of `minAlignMask` below a slot or granule
   * @throws DmaError ERR_DMA_BOUNCE_LENGTH (EINVAL)
   */
  map(
    phys: PhysAddr,
    length: number,
    alignMask: number,
    limits: BounceLimits,
    keepMask: number = limits.minAlignMask & (alignMask | (BOUNCE_SLOT - 1)),
  ): PhysAddr | undefined {
    if (!(Number.isInteger(length) && length > 0)) throw badLength(length);
    const request = this.#request;
    request.phys = phys;
    request.length = length;
    request.kept = phys & keepMask;
    request.size = (length + request.kept + alignMask) & ~alignMask;
    request.alignMask = alignMask;
    request.minAlignMask = limits.minAlignMask;
    request.segmentBoundaryMask = limits.segmentBoundaryMask;
    // Compared before rounding: lengths beyond 32 bits are not for bit operations.
    const address = length > BOUNCE_LIMIT || request.size > BOUNCE_LIMIT ? -1 : this.#take(request);
    if (address === -1) {
      this.#observer?.slotsTaken?.(phys, length, alignMask, undefined);
      return undefined;
    }
    const { start } = this.#slotsAt(address)!;
    this.#copyIn(address, length);
    this.#observer?.slotsTaken?.(phys, length, alignMask, address - start);
    return address;
  }

  /**
   * Ends the mapping at `address`: copies out what the device may have written unless `skipCopy`, and frees all its
   * slots, whatever `length` is. Where no mapping begins, nothing is copied or freed.
   */
  unmap(address: PhysAddr, length: number, direction: Direction, skipCopy: boolean): void {
    const slots = this.#slotsAt(address);
    if (slots === undefined) return;
    if (!skipCopy && deviceWrites(direction)) this.#copyOut(address, length);
    slots.release(address);
    this.#observer?.slotsFreed?.(address - slots.start);
    if (slots !== this.#pool && slots.used === 0) this.#dropTransient(slots);
  }

  /** What the device wrote to any part of a mapping reaches the memory; nothing if the device only reads. */
  syncForCpu(address: PhysAddr, length: number, direction: Direction): void {
    if (deviceWrites(direction)) this.#copyOut(address, length);
  }

  /** What the CPU wrote to the memory of any part of a mapping reaches the device; nothing if the device only writes. */
  syncForDevice(address: PhysAddr, length: number, direction: Direction): void {
    if (deviceReads(direction)) this.#copyIn(address, length);
  }

  /** Does `address` lie in the pool, or in a buffer added to it? */
  holds(address: PhysAddr): boolean {
    return this.#slotsAt(address) !== undefined;
  }

  /** The memory whose copy is at `address`. */
  original(address: PhysAddr): PhysAddr | undefined {
    const origin = this.#slotsAt(address)?.origin(address) ?? -1;
    return origin < 0 ? undefined : (origin as PhysAddr);
  }

  /** Gives back the buffers that were added, as far as no mapping is in them. */
  [Symbol.dispose](): void {
    for (const extra of this.#extras) if (extra.slots.used === 0) this.#grow?.pages.freePages(extra.page, extra.pages);
    this.#extras = this.#extras.filter((extra) => extra.slots.used > 0);
  }

  #slotsAt(address: number): Slots | undefined {
    if (this.#pool.holds(address)) return this.#pool;
    for (const { slots } of this.#extras) if (slots.holds(address)) return slots;
    return undefined;
  }

  #take(request: SlotRequest): PhysAddr | -1 {
    const cpu = this.#currentCpu === undefined ? 0 : this.#currentCpu();
    let address = this.#pool.take(request, cpu);
    for (let i = 0; address === -1 && i < this.#extras.length; i++)
      if (!this.#extras[i]!.transient) address = this.#extras[i]!.slots.take(request, cpu);
    return address === -1 && this.#grow !== undefined ? this.#takeElsewhere(this.#grow, request) : address;
  }

  /** A buffer for this mapping alone, and later a pool for those to come. */
  #takeElsewhere(grow: BounceGrowth, request: SlotRequest): PhysAddr | -1 {
    if (!this.#growing) {
      this.#growing = true;
      grow.later(() => {
        this.#growing = false;
        this.#add(grow, grow.slots ?? BOUNCE_POOL_SLOTS, false);
      });
    }
    const aligned = Math.max(request.alignMask, request.minAlignMask, BOUNCE_SLOT - 1);
    const extra = this.#add(grow, slotsOf(request.size) + slotsOf(aligned + 1), true);
    if (extra === undefined) return -1;
    const address = extra.slots.take(request, 0);
    if (address === -1) this.#drop(extra);
    return address;
  }

  #add(grow: BounceGrowth, atLeast: number, transient: boolean): Extra | undefined {
    const count = Math.ceil(atLeast / BOUNCE_SET) * BOUNCE_SET;
    const pages = (count * BOUNCE_SLOT) / 4096;
    const page = grow.pages.allocatePages(pages, grow.lastPage);
    if (page === undefined) return undefined;
    const extra = { slots: new Slots(PhysPage.start(page), count, 1), page, pages, transient };
    this.#extras.push(extra);
    return extra;
  }

  #dropTransient(slots: Slots): void {
    const extra = this.#extras.find((each) => each.slots === slots);
    if (extra?.transient) this.#drop(extra);
  }

  #drop(extra: Extra): void {
    this.#extras.splice(this.#extras.indexOf(extra), 1);
    this.#grow?.pages.freePages(extra.page, extra.pages);
  }

  #copyIn(address: PhysAddr, length: number): void {
    const slots = this.#slotsAt(address);
    if (slots === undefined) return;
    const size = Math.min(length, slots.remaining(address));
    if (size > 0) this.#copier.copy(slots.origin(address), address, size);
    this.#copied(address - slots.start, length, size, "in");
  }

  #copyOut(address: PhysAddr, length: number): void {
    const slots = this.#slotsAt(address);
    if (slots === undefined) return;
    const size = Math.min(length, slots.remaining(address));
    if (size > 0) this.#copier.copy(address, slots.origin(address), size);
    this.#copied(address - slots.start, length, size, "out");
  }

  #copied(offset: number, asked: number, size: number, way: "in" | "out"): void {
    if (this.#counters !== undefined) this.#counters.bouncedBytes += size;
    this.#observer?.bounceCopied?.(offset, asked, way);
  }
}

/** The longest mapping that always fits, whatever its address: a set less what the kept low bits may take. */
export function maxBounceSize(minAlignMask: number): number {
  return BOUNCE_LIMIT - slotsOf(minAlignMask) * BOUNCE_SLOT;
}
