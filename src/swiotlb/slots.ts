/**
 * The slots of one contiguous bounce buffer: which are free, and what lies in the others.
 *
 * Idea: memory is cut into slots of 2 KiB and sets of 128 slots. Each slot knows the length of the free run from itself
 * to the end of its set, so looking for n adjacent slots reads one number per candidate. Areas are searched one after
 * the other, each from where its last search ended: neighbours in time are not neighbours in memory.
 * Promises: a run never crosses a set; which slots are taken equals Linux's choice; release never fails or allocates.
 * State is in typed arrays: 21 bytes a slot, and no object per mapping.
 * Not for: copying, or the choice among several buffers (pool.ts).
 * Specified by: behaviour of Linux 7.2 bounce buffers; judged by test/golden/dma-api.
 */
import { PAGE_SIZE, type PhysAddr } from "../base/index.ts";
import { badIndex, badPoolStart, badSlots, tooManySlots } from "./errors.ts";

/** Bytes of a slot. */
export const BOUNCE_SLOT = 2048;
/** Slots of a set: no mapping takes more, or crosses from one set into the next. */
export const BOUNCE_SET = 128;
const SLOT_MASK = BOUNCE_SLOT - 1;
const SET_MASK = BOUNCE_SET - 1;
/** The largest mapping there can be: a whole set. */
export const BOUNCE_LIMIT: number = BOUNCE_SLOT * BOUNCE_SET;
/** Of one buffer: 128 GiB, and about 1.4 GB of this program's memory to keep account of them. */
const MOST_SLOTS = 2 ** 26;
/** `origins` of a slot that holds nothing of a mapping. */
const NONE = -1;

/** Slots that `bytes` need. */
export const slotsOf = (bytes: number): number => (bytes + SLOT_MASK) >>> 11;

/** One slot, as others may look at it. */
export interface SlotState {
  /** Free slots from here to the end of the set; 0: taken. */
  readonly freeRun: number;
  /** Slots before this one that its mapping took only to keep an alignment. */
  readonly padSlots: number;
  /** Bytes from this slot's data to the end of the mapping's slots. */
  readonly allocSize: number;
  /** Part of a mapping holds data here. */
  readonly used: boolean;
}

/** What a mapping asks of the place where it goes. Reused from one request to the next. */
export interface SlotRequest {
  phys: number;
  length: number;
  /** Low bits of `phys` that the place keeps. */
  kept: number;
  /** Bytes to take: kept bits, data, and what rounds them up. */
  size: number;
  alignMask: number;
  minAlignMask: number;
  segmentBoundaryMask: number;
}

export class Slots {
  readonly start: PhysAddr;
  readonly end: number;
  readonly count: number;
  readonly #areas: number;
  readonly #areaSlots: number;
  readonly #freeRuns: Uint8Array;
  readonly #padSlots: Uint8Array;
  readonly #allocSizes: Int32Array;
  /** Address of the memory whose copy begins at the slot's data. */
  readonly #origins: Float64Array;
  /** Where data begins in the mapping's first slot: subtracted in all of them, their origins are a slot apart. */
  readonly #kept: Uint16Array;
  /** Bytes of the mapping itself from this slot's data on: what may be copied. */
  readonly #dataSizes: Int32Array;
  /** In the first slot with data: slots the mapping took, those before it included. 0 elsewhere. */
  readonly #taken: Uint8Array;
  readonly #areaUsed: Int32Array;
  readonly #areaNext: Int32Array;
  /** The boundary asked for last, and what follows from it. */
  #boundaryMask = Number.NaN;
  #boundarySlots = 0;
  #baseSlots = 0;
  #baseLow = 0;

  /** @throws DmaError ERR_DMA_BOUNCE_SLOTS, ERR_DMA_BOUNCE_START (EINVAL) */
  constructor(start: PhysAddr, count: number, areas: number) {
    if (typeof count !== "number" || typeof areas !== "number") throw badSlots(count, areas);
    const areaSlots = count / areas;
    if (!Number.isInteger(Math.log2(areas)) || !(count > 0) || areaSlots % BOUNCE_SET !== 0)
      throw badSlots(count, areas);
    if (count > MOST_SLOTS) throw tooManySlots(count, MOST_SLOTS);
    if (!(Number.isSafeInteger(start) && start >= 0) || start % PAGE_SIZE !== 0) throw badPoolStart(start);
    this.start = start;
    this.end = start + count * BOUNCE_SLOT;
    this.count = count;
    this.#areas = areas;
    this.#areaSlots = areaSlots;
    this.#freeRuns = new Uint8Array(count);
    for (let slot = 0; slot < count; slot++) this.#freeRuns[slot] = BOUNCE_SET - (slot & SET_MASK);
    this.#padSlots = new Uint8Array(count);
    this.#allocSizes = new Int32Array(count);
    this.#origins = new Float64Array(count).fill(NONE);
    this.#kept = new Uint16Array(count);
    this.#dataSizes = new Int32Array(count);
    this.#taken = new Uint8Array(count);
    this.#areaUsed = new Int32Array(areas);
    this.#areaNext = new Int32Array(areas);
  }

  /** Slots in use, of all areas. */
  get used(): number {
    let used = 0;
    for (let area = 0; area < this.#areas; area++) used += this.#areaUsed[area]!;
    return used;
  }

  /** Where the next search of an area begins, counted from the area's first slot. */
  next(area: number): number {
    return this.#areaNext[area]!;
  }

  /** @throws DmaError ERR_DMA_BOUNCE_INDEX (EINVAL) */
  setNext(area: number, index: number): void {
    if (!(Number.isInteger(index) && index >= 0 && index < this.#areaSlots)) throw badIndex(index, this.#areaSlots);
    this.#areaNext[area] = index;
  }

  holds(address: number): boolean {
    return address >= this.start && address < this.end;
  }

  state(slot: number): SlotState {
    return {
      freeRun: this.#freeRuns[slot]!,
      padSlots: this.#padSlots[slot]!,
      allocSize: this.#allocSizes[slot]!,
      used: this.#origins[slot]! !== NONE,
    };
  }

  /** Address of the memory whose copy is at `address`, which lies in this buffer; -1 if there is none. */
  origin(address: number): number {
    const slot = this.#slotAt(address);
    const origin = this.#origins[slot]!;
    if (origin === NONE) return NONE;
    const inside = (address & SLOT_MASK) - this.#kept[slot]!;
    return inside < 0 && this.#taken[slot]! > 0 ? NONE : origin + inside;
  }

  /** Bytes of the mapping from `address` on, which lies in this buffer; 0 if there is none. */
  remaining(address: number): number {
    const slot = this.#slotAt(address);
    if (this.#origins[slot]! === NONE) return 0;
    const inside = (address & SLOT_MASK) - this.#kept[slot]!;
    const left = this.#dataSizes[slot]! - inside;
    return left < 0 || (inside < 0 && this.#taken[slot]! > 0) ? 0 : left;
  }

  /**
   * Takes slots for `request`, in the area of `cpu` first. The address for its first byte, or -1 if there is no room.
   * O(1) at best; at worst every slot of every area is looked at.
   */
  take(request: SlotRequest, cpu: number): PhysAddr | -1 {
    for (let i = 0; i < this.#areas; i++) {
      const area = (cpu + i) & (this.#areas - 1);
      const slot = this.#search(area, request);
      if (slot >= 0) return this.#fill(area, slot, request);
    }
    return -1;
  }

  /** The slot where `request` fits in `area`; -1 if it does not. */
  #search(area: number, request: SlotRequest): number {
    const count = slotsOf(request.size);
    if (count > this.#areaSlots - this.#areaUsed[area]!) return -1;
    const { phys, minAlignMask, segmentBoundaryMask } = request;
    let aligned = request.alignMask;
    // History: whoever asked for a page and more has always been given a page boundary.
    if (aligned === 0 && minAlignMask === 0 && request.size >= PAGE_SIZE) aligned = PAGE_SIZE - 1;
    aligned |= SLOT_MASK;
    const alike = minAlignMask & ~aligned;
    const wanted = phys & alike;
    const stride = slotsOf(Math.max(aligned, alike) + 1);
    if (segmentBoundaryMask !== this.#boundaryMask) this.#setBoundary(segmentBoundaryMask);
    const baseSlots = this.#baseSlots;
    const boundarySlots = this.#boundarySlots;
    const mayCross = boundarySlots < baseSlots + this.count;
    const baseLow = this.#baseLow;
    const first = area * this.#areaSlots;
    const freeRuns = this.#freeRuns;

    let index = this.#areaNext[area]!;
    for (let checked = 0; checked < this.#areaSlots; ) {
      const slot = first + index;
      const low = (baseLow + (slot << 11)) | 0;
      let step = 1;
      if ((low & aligned) === 0 && (phys === 0 || (low & alike) === wanted)) {
        const crosses = mayCross && ((baseSlots + slot) % boundarySlots) + count > boundarySlots;
        if (!crosses && freeRuns[slot]! >= count) return slot;
        step = stride;
      }
      checked += step;
      index += step;
      if (index >= this.#areaSlots) index = 0;
    }
    return -1;
  }

  /** The device sees the buffer at addresses of which a boundary keeps only the low bits. Divides, so not per search. */
  #setBoundary(mask: number): void {
    const base = this.start % (mask + 1);
    this.#boundaryMask = mask;
    this.#boundarySlots = Math.floor(mask / BOUNCE_SLOT) + 1;
    this.#baseSlots = Math.ceil(base / BOUNCE_SLOT);
    this.#baseLow = base | 0;
  }

  #fill(area: number, slot: number, request: SlotRequest): PhysAddr {
    const count = slotsOf(request.size);
    const pads = request.kept >>> 11;
    const kept = request.kept & SLOT_MASK;
    const data = slot + pads;
    for (let i = 0; i < count; i++) {
      this.#freeRuns[slot + i] = 0;
      this.#allocSizes[slot + i] = request.size - kept - i * BOUNCE_SLOT;
    }
    for (let i = data; i < slot + count; i++) {
      this.#origins[i] = request.phys + (i - data) * BOUNCE_SLOT;
      this.#kept[i] = kept;
      this.#dataSizes[i] = request.length - (i - data) * BOUNCE_SLOT;
    }
    this.#padSlots[data] = pads;
    this.#taken[data] = count;
    this.#renumber(slot - 1, 0);
    const after = slot - area * this.#areaSlots + count;
    this.#areaNext[area] = after < this.#areaSlots ? after : 0;
    this.#areaUsed[area]! += count;
    return (this.start + data * BOUNCE_SLOT + kept) as PhysAddr;
  }

  /** Gives back the slots of the mapping that begins at `address`; does nothing if none does. */
  release(address: number): void {
    const data = this.#slotAt(address);
    const count = this.#taken[data]!;
    if (count === 0) return;
    const slot = data - this.#padSlots[data]!;
    for (let i = slot; i < slot + count; i++) {
      this.#allocSizes[i] = 0;
      this.#origins[i] = NONE;
      this.#dataSizes[i] = 0;
      this.#kept[i] = 0;
    }
    this.#padSlots[data] = 0;
    this.#taken[data] = 0;
    const end = slot + count;
    let run = (end & SET_MASK) === 0 ? 0 : this.#freeRuns[end]!;
    for (let i = end - 1; i >= slot; i--) this.#freeRuns[i] = ++run;
    this.#renumber(slot - 1, run);
    this.#areaUsed[Math.floor(slot / this.#areaSlots)]! -= count;
  }

  /** Counts the free slots from `slot` down again, `run` being free after it, as far as their set goes. */
  #renumber(slot: number, run: number): void {
    for (let i = slot; i >= 0 && (i & SET_MASK) !== SET_MASK && this.#freeRuns[i]! !== 0; i--)
      this.#freeRuns[i] = ++run;
  }

  /** Valid for addresses of this buffer. */
  #slotAt(address: number): number {
    return ((address - this.start) / BOUNCE_SLOT) | 0;
  }
}
