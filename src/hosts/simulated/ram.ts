/**
 * The RAM of a simulated machine, given out by the page or as buffers whose bytes a program holds.
 *
 * Idea: RAM lies below and above the hole for old devices, as on PCs. Where a request lands is the lowest free place, or
 * one that chance picks, so that drivers are tried with scattered addresses.
 * Promises: what is given out is zeroed and nobody else's; giving back twice does nothing for buffers.
 */
import { GiB, MiB, PAGE_SIZE, PhysAddr, PhysPage, pagesOf, type Random } from "../../base/index.ts";
import type { HostBuffer, HostMemory, PageAllocator } from "../../platform/index.ts";
import { badLength, badMemorySize, outOfMemory } from "./errors.ts";
import { Extents } from "./extents.ts";
import type { SimulatedMemory } from "./memory.ts";

/** RAM from here on lies above 4 GiB: the hole is for devices that know 32 bits only. */
export const HOLE_START: number = 3 * GiB;
const HOLE_END = 4 * GiB;
/** Firmware, kernel and whatever else is not given out. */
const RESERVED: number = MiB;

/** The CPU's own array for pages that a program holds, where that is not the memory itself. */
export interface BufferViews {
  /** Bytes through which the CPU sees the pages from now on. */
  cachedView(first: PhysPage, pages: number): Uint8Array;
  /** Nobody holds the pages any more: their array may go, with what it holds. */
  forget(first: PhysPage, pages: number): void;
}

/** How much, and in which order pages are given out. */
export interface SimulatedRamOptions {
  /** The bytes of the pages. */
  readonly memory: SimulatedMemory;
  /** Whole pages, 1 MiB to 2^51. */
  readonly bytes: number;
  /** Places are picked by chance. Lowest first, unless given. */
  readonly random?: Random;
  /** Where the CPU does not see memory itself: caches that devices do not look into. */
  readonly views?: BufferViews;
}

/** Pages of RAM, given out and taken back; and buffers, as drivers allocate them. */
export class SimulatedRam implements HostMemory, PageAllocator {
  /** End of the highest RAM. */
  readonly end: PhysAddr;
  readonly #memory: SimulatedMemory;
  readonly #runs: Extents;
  readonly #random: Random | undefined;
  readonly #views: BufferViews | undefined;
  readonly #total: number;

  /** @throws DmaError ERR_DMA_SIM_MEMORY_SIZE (EINVAL) */
  constructor(options: SimulatedRamOptions) {
    const { memory, bytes, random, views } = options;
    if (!(Number.isSafeInteger(bytes) && bytes >= MiB && bytes <= 2 ** 51 && bytes % PAGE_SIZE === 0))
      throw badMemorySize(bytes);
    this.#memory = memory;
    this.#random = random;
    this.#views = views;
    this.end = ramEnd(bytes);
    const runs: [number, number][] = [[pagesOf(RESERVED), pagesOf(Math.min(bytes, HOLE_START))]];
    if (bytes > HOLE_START) runs.push([HOLE_END / PAGE_SIZE, this.end / PAGE_SIZE]);
    this.#runs = new Extents(runs);
    this.#total = this.#runs.free;
  }

  /** Pages given out. */
  get pagesInUse(): number {
    return this.#total - this.#runs.free;
  }

  /** Pages that are free. */
  get free(): number {
    return this.#runs.free;
  }

  /** The most free pages in a row. */
  get largestRun(): number {
    return this.#runs.largest;
  }

  allocatePages(pages: number, lastPage?: number): PhysPage | undefined {
    const page = this.#runs.take(pages, 1, lastPage, this.#random);
    if (page < 0) return undefined;
    this.#memory.forget(PhysAddr(page * PAGE_SIZE), pages * PAGE_SIZE);
    return page as PhysPage;
  }

  freePages(page: PhysPage, pages: number): void {
    this.#memory.forget(PhysPage.start(page), pages * PAGE_SIZE);
    this.#views?.forget(page, pages);
    this.#runs.give(page, pages);
  }

  /** @throws DmaError ERR_DMA_LENGTH (EINVAL), ERR_DMA_SIM_MEMORY (ENOMEM) */
  allocate(length: number): HostBuffer {
    if (!(Number.isSafeInteger(length) && length > 0)) throw badLength(length);
    const pages = pagesOf(length);
    const page = this.allocatePages(pages);
    if (page === undefined) throw outOfMemory(length, this.#runs.free, this.#runs.largest);
    const bytes = new Uint8Array(pages * PAGE_SIZE);
    this.#memory.back(page, bytes);
    const seen = this.#views ? this.#views.cachedView(page, pages) : bytes;
    let held = true;
    return {
      phys: PhysPage.start(page),
      length,
      bytes: seen.subarray(0, length),
      free: () => {
        if (held) this.freePages(page, pages);
        held = false;
      },
    };
  }
}

/** End of the highest RAM of a machine with `bytes` of it. */
export const ramEnd = (bytes: number): PhysAddr => PhysAddr(bytes > HOLE_START ? bytes - HOLE_START + HOLE_END : bytes);

/** Is there RAM at `page`, on a machine with `bytes` of it? */
export const isRam = (page: PhysPage, bytes: number): boolean => {
  const address = page * PAGE_SIZE;
  return address < HOLE_START ? address < bytes : address >= HOLE_END && address < ramEnd(bytes);
};
