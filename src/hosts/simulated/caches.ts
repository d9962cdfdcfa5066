/**
 * The caches of a simulated CPU, for devices that do not look into them: a write-back cache of lines over memory.
 *
 * Idea: the CPU reads and writes lines; devices see memory only. Maintenance is queued, and done at the barrier and not a
 * moment earlier, which is as late as hardware may be. So a missing clean, a missing invalidate, a missing barrier, or one
 * at the wrong moment shows as *stale bytes*, every time and not once in a million.
 * A buffer whose bytes a program holds is cached whole, always: its array is the cache. A line of it is dirty if it
 * differs from what was last filled or written back.
 * Promises: what the CPU wrote it reads back until it gives the line up; lines are written back whole, so that whoever
 * shares a line with a device's buffer loses bytes, as on hardware.
 */
import {
  type Direction,
  eachPage,
  PAGE_SIZE,
  PhysAddr,
  PhysPage,
  pagesTouched,
  type Random,
} from "../../base/index.ts";
import type { CacheMaintenance, PhysicalMemory } from "../../platform/index.ts";
import type { BufferViews } from "./ram.ts";

/** What the caches lie over. */
export interface CpuCachesOptions {
  /** The memory behind the caches: what devices see. */
  readonly memory: PhysicalMemory;
  /** Is there memory to cache at this page? Registers are never cached. Everywhere, unless said. */
  readonly isCached?: (page: PhysPage) => boolean;
  /** Bytes of a line, a power of two. 64 unless said. */
  readonly lineBytes?: number;
}

const ABSENT = 0;
const CLEAN = 1;
const DIRTY = 2;

interface CachedPage {
  /** What the CPU sees, where the line is present. */
  readonly bytes: Uint8Array;
  readonly lines: Uint8Array;
  /** Of a page whose bytes a program holds: what was last filled or written back. */
  readonly filled: Uint8Array | undefined;
}

type Maintenance = "clean" | "invalidate" | "clean and invalidate";
interface Queued {
  readonly what: Maintenance;
  readonly phys: number;
  readonly length: number;
}

/**
 * The CPU's caches over memory, for devices that do not look into them: lines are stale until they are maintained, as
 * on hardware.
 */
export class CpuCaches implements PhysicalMemory, CacheMaintenance, BufferViews {
  readonly #memory: PhysicalMemory;
  readonly #isCacheable: (page: PhysPage) => boolean;
  readonly #uncached = new Set<PhysPage>();
  readonly #lineBytes: number;
  readonly #pages = new Map<PhysPage, CachedPage>();
  #queue: Queued[] = [];
  /** Maintenance of ranges so far. */
  operations = 0;
  /** Barriers so far. */
  barriers = 0;

  /** Empty caches over the memory of the options. */
  constructor(options: CpuCachesOptions) {
    this.#memory = options.memory;
    this.#isCacheable = options.isCached ?? (() => true);
    this.#lineBytes = options.lineBytes ?? 64;
  }

  // What the CPU does.

  read(address: PhysAddr, into: Uint8Array): void {
    eachPage(address, into.length, (page, offset, at, length) => {
      if (!this.#isCached(page)) {
        this.#memory.read(PhysAddr(page * PAGE_SIZE + offset), into.subarray(at, at + length));
        return;
      }
      const cached = this.#cached(page);
      this.#eachLine(offset, length, (line) => this.#fill(page, cached, line));
      into.set(cached.bytes.subarray(offset, offset + length), at);
    });
  }

  write(address: PhysAddr, from: Uint8Array): void {
    eachPage(address, from.length, (page, offset, at, length) => {
      const bytes = from.subarray(at, at + length);
      if (!this.#isCached(page)) {
        this.#memory.write(PhysAddr(page * PAGE_SIZE + offset), bytes);
        return;
      }
      const cached = this.#cached(page);
      this.#eachLine(offset, length, (line) => {
        this.#fill(page, cached, line);
        cached.lines[line] = DIRTY;
      });
      cached.bytes.set(bytes, offset);
    });
  }

  /** Memory that both sides may touch at any time: from now on its pages are not cached. */
  view(address: PhysAddr, length: number): Uint8Array | undefined {
    const bytes = this.#memory.view?.(address, length);
    if (bytes) this.bypass(PhysPage.of(address), pagesTouched(address, length));
    return bytes;
  }

  /** From now on, until they are freed, the pages are not cached: what the CPU had of them goes to memory first. */
  bypass(first: PhysPage, pages: number): void {
    this.evict(PhysPage.start(first), pages * PAGE_SIZE);
    for (let i = 0; i < pages; i++) {
      this.#pages.delete(PhysPage.add(first, i));
      this.#uncached.add(PhysPage.add(first, i));
    }
  }

  cachedView(first: PhysPage, pages: number): Uint8Array {
    const bytes = new Uint8Array(pages * PAGE_SIZE);
    const filled = new Uint8Array(pages * PAGE_SIZE);
    for (let i = 0; i < pages; i++) {
      const part = (array: Uint8Array): Uint8Array => array.subarray(i * PAGE_SIZE, (i + 1) * PAGE_SIZE);
      const page = PhysPage.add(first, i);
      const entry = { bytes: part(bytes), lines: new Uint8Array(PAGE_SIZE / this.#lineBytes), filled: part(filled) };
      this.#pages.set(page, entry);
      for (let line = 0; line < entry.lines.length; line++) this.#fill(page, entry, line);
    }
    return bytes;
  }

  /** Drops all lines of the pages, dirty or not: the pages are nobody's now. */
  forget(first: PhysPage, pages: number): void {
    for (let i = 0; i < pages; i++) {
      this.#pages.delete(PhysPage.add(first, i));
      this.#uncached.delete(PhysPage.add(first, i));
    }
  }

  /** The pages were zeroed in memory, with all that was cached of them. */
  zeroed(first: PhysPage, pages: number): void {
    for (let i = 0; i < pages; i++) {
      const cached = this.#pages.get(PhysPage.add(first, i));
      cached?.lines.fill(ABSENT);
      if (!cached?.filled) continue;
      for (let line = 0; line < cached.lines.length; line++) this.#fill(PhysPage.add(first, i), cached, line);
    }
  }

  // Maintenance.

  forDevice(phys: PhysAddr, length: number, direction: Direction): void {
    this.#ask(
      direction === "to-device" ? "clean" : direction === "from-device" ? "invalidate" : "clean and invalidate",
      phys,
      length,
    );
  }

  forCpu(phys: PhysAddr, length: number, direction: Direction): void {
    if (direction !== "to-device") this.#ask("invalidate", phys, length);
  }

  barrier(): void {
    this.barriers++;
    const queue = this.#queue;
    this.#queue = [];
    for (const { what, phys, length } of queue) this.#maintain(what, phys, length);
  }

  /** Ranges that wait for a barrier. */
  get pending(): number {
    return this.#queue.length;
  }

  // What hardware does by itself, whenever it likes.

  /** The lines that [phys, + length) touches leave the cache; dirty ones are written back. */
  evict(phys: PhysAddr, length: number): void {
    this.#maintainLines(phys, length, (page, cached, line) => this.#drop(page, cached, line, true));
  }

  /** The lines that [phys, + length) touches are fetched, if they are not there. */
  prefetch(phys: PhysAddr, length: number): void {
    eachPage(phys, length, (page, offset, _at, piece) => {
      if (!this.#isCached(page)) return;
      const cached = this.#cached(page);
      this.#eachLine(offset, piece, (line) => this.#fill(page, cached, line));
    });
  }

  /** `times` evictions and prefetches of pages that are cached, as chance has it. */
  disturb(random: Random, times: number): void {
    const pages = [...this.#pages.keys()];
    for (let i = 0; i < times && pages.length > 0; i++) {
      const address = PhysAddr(random.pick(pages) * PAGE_SIZE + random.below(PAGE_SIZE));
      if (random.chance(1, 2)) this.evict(address, 1);
      else this.prefetch(address, 1);
    }
  }

  /** Dirty lines that [phys, + length) touches: none may be left while a device writes there. */
  dirtyLines(phys: PhysAddr, length: number): number {
    let dirty = 0;
    this.#maintainLines(phys, length, (_page, cached, line) => {
      if (this.#isDirty(cached, line)) dirty++;
    });
    return dirty;
  }

  #isCached(page: PhysPage): boolean {
    return this.#isCacheable(page) && !this.#uncached.has(page);
  }

  #ask(what: Maintenance, phys: PhysAddr, length: number): void {
    this.operations++;
    this.#queue.push({ what, phys, length });
  }

  #maintain(what: Maintenance, phys: number, length: number): void {
    const end = phys + length;
    this.#maintainLines(phys, length, (page, cached, line) => {
      const start = page * PAGE_SIZE + line * this.#lineBytes;
      const whole = start >= phys && start + this.#lineBytes <= end;
      if (what === "clean") this.#clean(page, cached, line);
      // The rest of a line that is not the buffer's alone is somebody's, and must not be lost.
      else this.#drop(page, cached, line, what === "clean and invalidate" || !whole);
    });
  }

  #isDirty({ bytes, lines, filled }: CachedPage, line: number): boolean {
    if (!filled) return lines[line] === DIRTY;
    const start = line * this.#lineBytes;
    for (let i = start; i < start + this.#lineBytes; i++) if (bytes[i] !== filled[i]) return true;
    return false;
  }

  #clean(page: PhysPage, cached: CachedPage, line: number): void {
    if (!this.#isDirty(cached, line)) return;
    const bytes = this.#lineOf(cached.bytes, line);
    this.#memory.write(this.#addressOf(page, line), bytes);
    cached.lines[line] = CLEAN;
    if (cached.filled) this.#lineOf(cached.filled, line).set(bytes);
  }

  /** The line leaves the cache. Where a program holds the bytes, it looks again at once. */
  #drop(page: PhysPage, cached: CachedPage, line: number, writeBack: boolean): void {
    if (writeBack) this.#clean(page, cached, line);
    cached.lines[line] = ABSENT;
    if (cached.filled) this.#fill(page, cached, line);
  }

  #fill(page: PhysPage, cached: CachedPage, line: number): void {
    if (cached.lines[line] !== ABSENT) return;
    const bytes = this.#lineOf(cached.bytes, line);
    this.#memory.read(this.#addressOf(page, line), bytes);
    cached.lines[line] = CLEAN;
    if (cached.filled) this.#lineOf(cached.filled, line).set(bytes);
  }

  #addressOf(page: PhysPage, line: number): PhysAddr {
    return PhysAddr(page * PAGE_SIZE + line * this.#lineBytes);
  }

  #lineOf(bytes: Uint8Array, line: number): Uint8Array {
    return bytes.subarray(line * this.#lineBytes, (line + 1) * this.#lineBytes);
  }

  #cached(page: PhysPage): CachedPage {
    let cached = this.#pages.get(page);
    if (!cached) {
      const lines = new Uint8Array(PAGE_SIZE / this.#lineBytes);
      cached = { bytes: new Uint8Array(PAGE_SIZE), lines, filled: undefined };
      this.#pages.set(page, cached);
    }
    return cached;
  }

  /** Lines that are in the cache, of those that [phys, + length) touches. */
  #maintainLines(
    phys: number,
    length: number,
    visit: (page: PhysPage, cached: CachedPage, line: number) => void,
  ): void {
    eachPage(phys, length, (page, offset, _at, piece) => {
      const cached = this.#pages.get(page);
      if (!cached) return;
      this.#eachLine(offset, piece, (line) => {
        if (cached.lines[line] !== ABSENT) visit(page, cached, line);
      });
    });
  }

  #eachLine(offset: number, length: number, visit: (line: number) => void): void {
    const last = Math.floor((offset + length - 1) / this.#lineBytes);
    for (let line = Math.floor(offset / this.#lineBytes); line <= last; line++) visit(line);
  }
}
