/**
 * The memory of a GPU as processes have pages in it: allocations, migration there and back, eviction, and a GPU's time alone with them.
 *
 * Idea: pages move by the GPU's copy engine, over the bus, through mappings that live for the copy only. A move takes the pages out of the
 * process first, which every GPU that uses them hears and lets go; so at no moment is a page both mapped for the bus and on its way. Each page
 * knows its allocation, and an allocation its length: what the CPU touches brings back all of it that the touched area has.
 * Promises: a move to the GPU is of the whole range or of nothing. A CPU that comes before the GPU's time is over waits. Eviction ends with
 * the last page gone, or says that it could not. Nobody gets pages when the driver is leaving.
 * Not for: deciding what should move. Specified by: behaviour of Linux 7.2 drm_pagemap.
 */
import { PAGE_SIZE, type PhysPage } from "../../base/index.ts";
import type { Dma } from "../../dma/index.ts";
import {
  type Clock,
  type DeviceMemoryDriver,
  type DeviceMemoryPool,
  type FaultOutcome,
  finish,
  type GpuAdapter,
  type PageMigration,
  type Steps,
  UserAddr,
  type UserMemory,
  WAITING,
} from "../../platform/index.ts";
import { copyOverBus, type PagePair } from "./bus-copy.ts";
import { cannotMigrate, memoryFull, memoryHeld, unbound } from "./errors.ts";
import type { GpuGroup } from "./gpu-group.ts";
import { checkRange, residence } from "./residence.ts";

/** A GPU's time alone with pages that came to it. */
export interface Timeslice {
  readonly lengthMs: number;
  readonly clock: Clock;
  /** The CPU came too early: lets time go by. Where it does not, the access waits for other work. */
  readonly wait: () => void;
}

/** Memory of a GPU, and how it is reached. */
export interface GpuMemoryOptions {
  readonly adapter: GpuAdapter;
  readonly dma: Dma;
  /** Who finds these pages in a process and leaves them where they are: all GPUs of the group. */
  readonly group: GpuGroup;
  /** Page number of the first page of its memory, as processes' tables have it. */
  readonly firstPage: PhysPage;
  /** None unless said. */
  readonly timeslice?: Timeslice;
}

/** Pages of the GPU that came together. */
export interface GpuAllocation {
  /** Bytes that it was made for: what a touch of the CPU brings back lies in an aligned block of so many. */
  readonly lengthBytes: number;
  /** Pages that are there still. */
  pages: number;
  /** Until then the CPU waits. ms of the machine's time. */
  readonly untilMs: number;
}

/** Attempts to evict an allocation. */
const ATTEMPTS = 3;
/** Scratch memory that a move needs for each page: two words, an address entry, a pointer. Bytes. */
export const SCRATCH_BYTES = 40;
const HUGE_PAGES = 512;

/** The memory of one GPU for pages of processes. */
export class GpuMemory implements DeviceMemoryDriver {
  readonly adapter: GpuAdapter;
  readonly group: GpuGroup;
  readonly firstPage: PhysPage;
  /** Pages that moved since the start, and moves that were refused for now. */
  readonly counts: { movedIn: number; movedOut: number; acrossPages: number; evictions: number; waits: number } = {
    movedIn: 0,
    movedOut: 0,
    acrossPages: 0,
    evictions: 0,
    waits: 0,
  };
  readonly #dma: Dma;
  readonly #timeslice: Timeslice | undefined;
  readonly #allocationOf = new Map<number, GpuAllocation>();
  /** Oldest first. */
  readonly #allocations = new Set<GpuAllocation>();
  #pool: DeviceMemoryPool | undefined;
  #isBound = true;

  constructor(options: GpuMemoryOptions) {
    const { adapter, dma, group, firstPage, timeslice } = options;
    this.adapter = adapter;
    this.group = group;
    this.firstPage = firstPage;
    this.#dma = dma;
    this.#timeslice = timeslice;
    group.add(this);
  }

  /** Where its pages are given out: a pool whose driver this is. */
  usePool(pool: DeviceMemoryPool): void {
    this.#pool = pool;
  }

  /** Allocations that have pages, oldest first. */
  get allocations(): readonly GpuAllocation[] {
    return [...this.#allocations];
  }

  /** Is `page` one of this memory's? */
  holds(page: number): boolean {
    return page >= this.firstPage && page < this.firstPage + this.adapter.memoryPages;
  }

  /** The allocation that `page` belongs to. */
  allocationOf(page: number): GpuAllocation | undefined {
    return this.#allocationOf.get(page);
  }

  /**
   * Moves [start, end) of a process to this GPU: all of it, or nothing.
   *
   * @returns pages that moved; 0 if all of them were here
   * @throws DmaError ERR_DMA_GPU_MIGRATE: nothing mapped (ENOENT), more than one area (EINVAL), not anonymous, in part here, or held by
   *   somebody (EBUSY); ERR_DMA_GPU_MEMORY (ENOMEM); ERR_DMA_GPU_UNBOUND (ENODEV); ERR_DMA_GPU_COPY (EIO), as the mapping for the copy
   */
  *moveIn(memory: UserMemory, start: number, end: number): Steps<number> {
    if (!this.#isBound || !this.#pool) throw unbound(this.adapter.name);
    for (let attempt = 0; ; attempt++) {
      const release = yield* memory.holdAreas();
      let isFull = false;
      try {
        checkRange(memory, start, end);
        const where = residence(memory, start, end, (page) => this.holds(page));
        if (where === "here") return 0;
        if (where === "partly") throw cannotMigrate("EBUSY", start, "a part of it is there already");
        const from = where === "group" ? "device" : "system";
        const owner = this.group;
        const migration = yield* memory.collect({
          start: UserAddr(start),
          end: UserAddr(end),
          from,
          owner,
          huge: true,
        });
        const moved = yield* this.#fill(migration, end - start);
        if (moved !== undefined) return moved;
        isFull = true;
      } finally {
        release();
      }
      if (isFull && (attempt >= ATTEMPTS || !(yield* this.#evictOldest()))) throw memoryFull((end - start) / PAGE_SIZE);
    }
  }

  *bringBack(memory: UserMemory, address: UserAddr, page: PhysPage, order: number): Steps<FaultOutcome> {
    const allocation = this.#allocationOf.get(page);
    if (allocation && this.#isEarly(allocation)) {
      const { clock, wait } = this.#timeslice!;
      const before = clock.nowMs();
      this.counts.waits++;
      wait();
      if (clock.nowMs() === before) yield WAITING; // time stands still: only others can move it
      return "done"; // it touches the page once more
    }
    const block = Math.max(allocation?.lengthBytes ?? PAGE_SIZE, PAGE_SIZE * 2 ** order);
    const area = memory.areaAt(address);
    const start = Math.max(area?.start ?? address, address - (address % block));
    const end = Math.min(area?.end ?? address + block, address - (address % block) + block);
    const migration = yield* memory.collect({
      start: UserAddr(start),
      end: UserAddr(end),
      from: "device",
      owner: this.group,
      huge: true,
      faultPage: page,
    });
    const isTaken = isOut(migration, page);
    const pairs = this.#placesInSystem(migration, allocation);
    let isCopied = false;
    try {
      this.#copyOut(pairs);
      isCopied = true;
    } catch {
      // nothing of it moves: the access ends in a signal, and all is where it was
    }
    if (isCopied) yield* migration.move();
    migration.finish();
    if (!isCopied) return "no-page";
    if (pairs.some(({ local }) => local + this.firstPage === page)) return "done";
    if (isTaken) return "out-of-memory";
    yield WAITING; // somebody else is at work on it: it is touched once more
    return "done";
  }

  freed(page: PhysPage, pages: number): void {
    for (let i = page; i < page + pages; i++) {
      const allocation = this.#allocationOf.get(i);
      if (!allocation) continue;
      this.#allocationOf.delete(i);
      if (--allocation.pages === 0) this.#allocations.delete(allocation);
    }
  }

  /**
   * Brings all pages of an allocation back to the system, whoever has them.
   *
   * @throws DmaError ERR_DMA_GPU_HELD (EBUSY) if some stay after three attempts
   */
  *evictSteps(allocation: GpuAllocation): Steps<void> {
    this.counts.evictions++;
    for (let attempt = 0; attempt < ATTEMPTS && allocation.pages > 0; attempt++)
      yield* this.#pool!.evictSteps({
        only: (page) => this.#allocationOf.get(page) === allocation,
        copy: (from, to, pages) => this.#copyForEviction(from, to, pages),
      });
    if (allocation.pages > 0) throw memoryHeld(allocation.pages, ATTEMPTS);
  }

  /** As {@link GpuMemory.evictSteps}, at one go. */
  evict(allocation: GpuAllocation): void {
    finish(this.evictSteps(allocation));
  }

  /** The driver leaves: nobody gets pages any more, and all that are there go back. @throws DmaError ERR_DMA_GPU_HELD (EBUSY) */
  *unbindSteps(): Steps<void> {
    this.#isBound = false;
    for (const allocation of [...this.#allocations]) yield* this.evictSteps(allocation);
    this.group.remove(this);
  }

  #isEarly({ untilMs }: GpuAllocation): boolean {
    return this.#timeslice !== undefined && this.#timeslice.clock.nowMs() < untilMs;
  }

  /** Gives each page that is out a place here, and its contents. undefined: there is no room; nothing has moved. */
  *#fill(migration: PageMigration, lengthBytes: number): Steps<number | undefined> {
    let isFinished = false;
    try {
      for (let i = 0; i < migration.count; i += 2 ** migration.order(i))
        if (!migration.canMove(i))
          throw cannotMigrate("EBUSY", migration.start, "a page of it is held, shared or elsewhere");
      const places = this.#allocate(migration);
      if (!places) return undefined;
      this.#copyIn(migration, places);
      yield* migration.move();
      migration.finish();
      isFinished = true;
      return this.#enter(migration, places, lengthBytes);
    } finally {
      if (!isFinished) migration.finish();
    }
  }

  /** The page here for each index; undefined: not enough. What was allocated is given back by the end of the migration. */
  #allocate(migration: PageMigration): number[] | undefined {
    const pool = this.#pool!;
    const places: number[] = [];
    for (let i = 0; i < migration.count; ) {
      const isHuge = migration.order(i) > 0;
      const isBlock = !isHuge && (migration.start / PAGE_SIZE + i) % HUGE_PAGES === 0 && isSmall(migration, i);
      const first = isHuge ? pool.allocate(9) : isBlock ? pool.allocateApart() : pool.allocate(0);
      if (first !== undefined) {
        const pages = isHuge || isBlock ? HUGE_PAGES : 1;
        for (let j = 0; j < pages; j++) {
          places.push(first + j);
          if (!isHuge) migration.setDestination(i + j, (first + j) as PhysPage, 0);
        }
        if (isHuge) migration.setDestination(i, first, 9);
        i += pages;
        continue;
      }
      if (!isHuge && !isBlock) return undefined;
      // No block: the pages go their own ways.
      for (let j = 0; j < HUGE_PAGES; j++) {
        const page = pool.allocate(0);
        if (page === undefined) return undefined;
        migration.setDestination(i + j, page, 0);
        places.push(page);
      }
      i += HUGE_PAGES;
    }
    return places;
  }

  #copyIn(migration: PageMigration, places: readonly number[]): void {
    const pairs: PagePair[] = [];
    for (let i = 0; i < migration.count; ) {
      const pages = 2 ** migration.order(i);
      const source = migration.source(i);
      for (let j = 0; j < pages; j++) {
        const local = places[i + j]! - this.firstPage;
        if (source === undefined) this.adapter.clear(local, 1);
        else if (!this.#copyAcross(source + j, local)) pairs.push({ system: source + j, local });
      }
      i += pages;
    }
    copyOverBus(this.#dma, pairs, "to-device", (address, local, pages) => this.adapter.copyIn(address, local, pages));
  }

  /** A page of another GPU of the group comes over the interconnect. False: it is none. */
  #copyAcross(page: number, local: number): boolean {
    const other = this.group.memoryOf(page);
    if (!other) return false;
    const { link } = other.adapter;
    if (link === undefined || !this.adapter.copyAcross(link, page - other.firstPage, local, 1))
      throw cannotMigrate("EBUSY", page * PAGE_SIZE, "its memory is not on this interconnect");
    this.counts.acrossPages++;
    return true;
  }

  #enter(migration: PageMigration, places: readonly number[], lengthBytes: number): number {
    const untilMs = this.#timeslice ? this.#timeslice.clock.nowMs() + this.#timeslice.lengthMs : 0;
    const allocation: GpuAllocation = { lengthBytes, pages: 0, untilMs };
    for (let i = 0; i < migration.count; i++) {
      if (!migration.canMove(i) && migration.order(i) === 0 && !this.#isInHuge(migration, i)) continue;
      this.#allocationOf.set(places[i]!, allocation);
      allocation.pages++;
    }
    if (allocation.pages > 0) this.#allocations.add(allocation);
    this.counts.movedIn += allocation.pages;
    return allocation.pages;
  }

  /** Index `i` belongs to a huge page that moved as one. */
  #isInHuge(migration: PageMigration, i: number): boolean {
    const head = i - ((migration.start / PAGE_SIZE + i) % HUGE_PAGES);
    return head >= 0 && migration.order(head) > 0 && migration.canMove(head);
  }

  #placesInSystem(migration: PageMigration, allocation: GpuAllocation | undefined): PagePair[] {
    const pairs: PagePair[] = [];
    for (let i = 0; i < migration.count; ) {
      const pages = 2 ** migration.order(i);
      const source = migration.source(i);
      if (source !== undefined && migration.canMove(i) && this.#allocationOf.get(source) === allocation)
        this.#placeInSystem(migration, i, source - this.firstPage, pairs);
      i += pages;
    }
    return pairs;
  }

  #placeInSystem(migration: PageMigration, index: number, local: number, pairs: PagePair[]): void {
    const order = migration.order(index) > 0 ? 9 : 0;
    const place = migration.allocateSystem(order);
    if (place !== undefined) {
      migration.setDestination(index, place, order);
      for (let j = 0; j < 2 ** order; j++) pairs.push({ system: place + j, local: local + j });
      return;
    }
    if (order === 0) return;
    const parts: number[] = [];
    for (let j = 0; j < HUGE_PAGES; j++) {
      const page = migration.allocateSystem(0);
      if (page === undefined) break;
      migration.setDestination(index + j, page, 0);
      parts.push(page);
    }
    parts.forEach((system, j) => void pairs.push({ system, local: local + j }));
  }

  #copyOut(pairs: readonly PagePair[]): void {
    copyOverBus(this.#dma, pairs, "from-device", (address, local, pages) =>
      this.adapter.copyOut(local, address, pages),
    );
    this.counts.movedOut += pairs.length;
  }

  #copyForEviction(from: number, to: number, pages: number): boolean {
    const pairs = Array.from({ length: pages }, (_, i) => ({ system: to + i, local: from + i - this.firstPage }));
    try {
      this.#copyOut(pairs);
      return true;
    } catch {
      return false; // no mapping for the copy now: it stays, and is tried again
    }
  }

  *#evictOldest(): Steps<boolean> {
    for (const allocation of this.#allocations) {
      try {
        yield* this.evictSteps(allocation);
        return true;
      } catch {
        // held by somebody: the next
      }
    }
    return false;
  }
}

/** Is `page` among those that were taken out? */
function isOut(migration: PageMigration, page: number): boolean {
  for (let i = 0; i < migration.count; i++) {
    const source = migration.source(i);
    if (source === undefined || !migration.canMove(i)) continue;
    if (page >= source && page < source + 2 ** migration.order(i)) return true;
  }
  return false;
}

/** From index `first` on 512 pages move one by one. */
function isSmall(migration: PageMigration, first: number): boolean {
  if (first + HUGE_PAGES > migration.count) return false;
  for (let i = 0; i < HUGE_PAGES; i++) if (migration.order(first + i) > 0) return false;
  return true;
}
