/**
 * Physical memory of the simulated machine: sparse, so that terabytes of address space cost nothing until touched.
 *
 * Idea: one 4 KiB array per touched page, found by page number; an untouched page reads as zero. Bytes are moved by page,
 * never one at a time. A run of pages may lie in one array of its owner's (`back`): both see the same bytes. Regions
 * are what answers by itself: the registers and memory of devices.
 * Promises: what was written is read back; reads touch nothing; where nothing is, reads give all ones and writes nothing.
 */
import { eachPage, PAGE_SIZE, type PhysAddr, type PhysPage } from "../../base/index.ts";
import type { PhysicalMemory } from "../../platform/index.ts";
import { overlappingRegion } from "./errors.ts";

/** What answers for a region; offsets are in the region. */
export interface RegionTarget {
  /** Fills `into` with what [offset, + its length) answers. */
  read(offset: number, into: Uint8Array): void;
  /** Takes `from` at [offset, + its length). */
  write(offset: number, from: Uint8Array): void;
}

interface Region {
  readonly start: number;
  readonly end: number;
  readonly target: RegionTarget;
}

/** Where there is RAM. */
export interface SimulatedMemoryOptions {
  /** Is there RAM at this page? Everywhere, unless said. */
  readonly isRam?: (page: PhysPage) => boolean;
}

/** Physical memory of a machine: RAM that costs nothing until touched, and devices' windows. */
export class SimulatedMemory implements PhysicalMemory {
  readonly #isRam: ((page: PhysPage) => boolean) | undefined;
  readonly #pages = new Map<PhysPage, Uint8Array>();
  /** Arrays that somebody outside holds: their pages stay where they are. */
  readonly #held = new WeakSet<ArrayBufferLike>();
  /** By start. */
  readonly #regions: Region[] = [];
  #lowestRegion = Number.POSITIVE_INFINITY;

  /** All zeros; takes memory of this process by what is touched. */
  constructor(options: SimulatedMemoryOptions = {}) {
    this.#isRam = options.isRam;
  }

  read(address: PhysAddr, into: Uint8Array): void {
    eachPage(address, into.length, (page, offset, at, length) => {
      const bytes = this.#pages.get(page);
      if (bytes) into.set(bytes.subarray(offset, offset + length), at);
      else {
        const region = this.#regionAt(page * PAGE_SIZE);
        if (region) region.target.read(page * PAGE_SIZE + offset - region.start, into.subarray(at, at + length));
        else into.fill(this.#isRam === undefined || this.#isRam(page) ? 0 : 0xff, at, at + length);
      }
    });
  }

  write(address: PhysAddr, from: Uint8Array): void {
    eachPage(address, from.length, (page, offset, at, length) => {
      let bytes = this.#pages.get(page);
      if (!bytes) {
        const region = this.#regionAt(page * PAGE_SIZE);
        if (region) {
          region.target.write(page * PAGE_SIZE + offset - region.start, from.subarray(at, at + length));
          return;
        }
        if (this.#isRam && !this.#isRam(page)) return;
        bytes = new Uint8Array(PAGE_SIZE);
        this.#pages.set(page, bytes);
      }
      bytes.set(from.subarray(at, at + length), offset);
    });
  }

  /** Drops the pages that [address, address + length) touches: they read as zero again, and are nobody's array. */
  forget(address: PhysAddr, length: number): void {
    if (length / PAGE_SIZE > this.#pages.size) {
      const first = Math.floor(address / PAGE_SIZE);
      const end = Math.ceil((address + length) / PAGE_SIZE);
      for (const page of this.#pages.keys()) if (page >= first && page < end) this.#pages.delete(page);
    } else eachPage(address, length, (page) => void this.#pages.delete(page));
  }

  /** Zeroes whole pages where they lie. */
  scrub(first: PhysPage, pages: number): void {
    for (let i = 0; i < pages; i++) this.#pages.get((first + i) as PhysPage)?.fill(0);
  }

  /** From now on the pages from `first` on lie in `bytes`, whole pages. What they held is lost. */
  back(first: PhysPage, bytes: Uint8Array): void {
    this.#held.add(bytes.buffer);
    for (let at = 0; at < bytes.length; at += PAGE_SIZE)
      this.#pages.set((first + at / PAGE_SIZE) as PhysPage, bytes.subarray(at, at + PAGE_SIZE));
  }

  /** The bytes of [address, + length) as they are: in one array, unless some of them are in another one already. */
  view(address: PhysAddr, length: number): Uint8Array | undefined {
    const offset = address % PAGE_SIZE;
    const first = ((address - offset) / PAGE_SIZE) as PhysPage;
    const pages = Math.ceil((offset + length) / PAGE_SIZE);
    const old = Array.from({ length: pages }, (_, i) => this.#pages.get((first + i) as PhysPage));
    const start = old[0];
    const inOne =
      start !== undefined &&
      old.every((bytes, i) => bytes?.buffer === start.buffer && bytes.byteOffset === start.byteOffset + i * PAGE_SIZE);
    if (inOne) {
      this.#held.add(start.buffer);
      return new Uint8Array(start.buffer, start.byteOffset + offset, length);
    }
    for (let i = 0; i < pages; i++) {
      const page = (first + i) as PhysPage;
      const isShared = old[i] !== undefined && this.#held.has(old[i]!.buffer);
      if (isShared || this.#regionAt(page * PAGE_SIZE) || (this.#isRam && !this.#isRam(page))) return undefined;
    }
    const bytes = new Uint8Array(pages * PAGE_SIZE);
    old.forEach((page, i) => {
      if (page) bytes.set(page, i * PAGE_SIZE);
    });
    this.back(first, bytes);
    return bytes.subarray(offset, offset + length);
  }

  /**
   * From now on `target` answers for [start, + length), whole pages without RAM. The returned function ends that.
   *
   * @throws DmaError ERR_DMA_SIM_REGION (EEXIST)
   */
  addRegion(start: PhysAddr, length: number, target: RegionTarget): () => void {
    const end = start + length;
    const taken = this.#regions.some((region) => region.start < end && start < region.end);
    if (taken || start % PAGE_SIZE !== 0 || length % PAGE_SIZE !== 0 || length <= 0)
      throw overlappingRegion(start, length);
    const region = { start, end, target };
    this.#regions.push(region);
    this.#sortRegions();
    return () => {
      const at = this.#regions.indexOf(region);
      if (at >= 0) this.#regions.splice(at, 1);
      this.#sortRegions();
    };
  }

  /** Neither RAM nor a region has a byte of [start, + length). */
  isFree(start: PhysAddr, length: number): boolean {
    const end = start + length;
    if (start % PAGE_SIZE !== 0 || end > Number.MAX_SAFE_INTEGER) return false;
    for (let page = start / PAGE_SIZE; page < end / PAGE_SIZE; page++)
      if (this.#isRam === undefined || this.#isRam(page as PhysPage)) return false;
    return !this.#regions.some((region) => region.start < end && start < region.end);
  }

  /** Pages that hold bytes of their own. */
  get touchedPages(): number {
    return this.#pages.size;
  }

  #sortRegions(): void {
    this.#regions.sort((a, b) => a.start - b.start);
    this.#lowestRegion = this.#regions[0]?.start ?? Number.POSITIVE_INFINITY;
  }

  #regionAt(address: number): Region | undefined {
    if (address < this.#lowestRegion) return undefined;
    let low = 0;
    let high = this.#regions.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#regions[middle]!.end <= address) low = middle + 1;
      else high = middle;
    }
    const region = this.#regions[low];
    return region && address >= region.start ? region : undefined;
  }
}
