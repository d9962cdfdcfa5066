/**
 * Memory of a device that processes have pages in: which of it is free, its bytes, and how pages leave it.
 *
 * Idea: private memory has page numbers but no place on the CPU's bus, so its bytes are kept here; coherent memory is memory like any
 * other. When the CPU needs a private page, the driver is asked, or the page is simply copied back.
 * Promises: a page that is given out is nobody else's; what was freed is free at once. Giving the memory up brings all pages back.
 * Specified by: behaviour of Linux 7.2 (dev_pagemap, migrate_to_ram, migrate_device_range).
 */
import { PAGE_SIZE, PhysAddr, type PhysPage } from "../../../base/index.ts";
import {
  type DeviceMemoryDriver,
  type DeviceMemoryPool,
  type EvictionOptions,
  type FaultOutcome,
  finish,
  type MemoryOwner,
  type PageMigration,
  type Steps,
  UserAddr,
  type UserMemory,
} from "../../../platform/index.ts";
import { Extents } from "../extents.ts";
import { SimulatedMemory } from "../memory.ts";
import type { Frames } from "./frames.ts";
import { TAKEN } from "./migrate.ts";
import { restoreEntries, unmapToMove } from "./moving.ts";
import { HUGE_ORDER, HUGE_PAGES } from "./page-table.ts";
import type { Area, DeviceRegion, Folio, FrameSource, Space } from "./structures.ts";

/** Memory of a device that processes can have pages in: how much, and whether the CPU reaches it. */
export interface DeviceMemoryOptions {
  /** The table of all pages of the machine, into which these are entered. */
  readonly frames: Frames;
  /** Private: only the device reaches it. Coherent: the CPU does, too. */
  readonly kind: "device-private" | "device-coherent";
  /** Compared with `===`: who finds its own pages in the table of a process. */
  readonly owner: MemoryOwner;
  /** Page numbers that nothing else has: for coherent memory those where the bytes are. Multiples of 512. */
  readonly firstPage: PhysPage;
  /** How many pages of 4 KiB it has. */
  readonly pages: number;
  /** Asked when the CPU needs a private page. Copies it back, unless said. */
  readonly driver?: DeviceMemoryDriver;
  /** The bytes of private memory, where the device has them already: those of page `firstPage` begin at 0. */
  readonly bytes?: Uint8Array;
}

/** Memory of a device as pages that processes can have, with an owner. */
export class SimulatedDeviceMemory implements DeviceMemoryPool, DeviceRegion {
  readonly kind: "device-private" | "device-coherent";
  readonly owner: MemoryOwner;
  readonly #frames: Frames;
  readonly #free: Extents;
  readonly #bytes: {
    read(address: PhysAddr, into: Uint8Array): void;
    write(address: PhysAddr, from: Uint8Array): void;
  };
  readonly #driver: DeviceMemoryDriver;
  readonly #used = new Map<PhysPage, Folio>();

  /** All of it is free. */
  constructor(options: DeviceMemoryOptions) {
    const { frames, kind, owner, firstPage, pages, driver } = options;
    this.kind = kind;
    this.owner = owner;
    this.#frames = frames;
    this.#free = new Extents([[firstPage, firstPage + pages]]);
    const own = options.bytes && bytesFrom(options.bytes, firstPage * PAGE_SIZE);
    this.#bytes = kind === "device-private" ? (own ?? new SimulatedMemory()) : frames.memory;
    this.#driver = driver ?? {
      bringBack: (memory, address, page, order) => this.copyBack(memory, address, page, order),
    };
  }

  /** Pages that processes have here. */
  get pagesInUse(): number {
    let pages = 0;
    for (const folio of this.#used.values()) pages += folio.pages;
    return pages;
  }

  allocate(order: 0 | typeof HUGE_ORDER): PhysPage | undefined {
    const pages = order === 0 ? 1 : HUGE_PAGES;
    const first = this.#free.take(pages, pages);
    if (first < 0) return undefined;
    const frame = first as PhysPage;
    this.#used.set(frame, this.#frames.enterRegion(frame, order, this));
    return frame;
  }

  allocateApart(): PhysPage | undefined {
    const first = this.allocate(HUGE_ORDER);
    if (first !== undefined) this.#frames.split(this.#used.get(first)!);
    return first;
  }

  read(page: PhysPage, offset: number, into: Uint8Array): void {
    this.#bytes.read(PhysAddr(page * PAGE_SIZE + offset), into);
  }

  write(page: PhysPage, offset: number, from: Uint8Array): void {
    this.#bytes.write(PhysAddr(page * PAGE_SIZE + offset), from);
  }

  freed(folio: Folio): void {
    this.#used.delete(folio.frame);
    this.#free.give(folio.frame, folio.pages);
    this.#driver.freed?.(folio.frame, folio.pages);
  }

  split(folio: Folio): void {
    this.#used.delete(folio.frame);
    for (let i = 0; i < HUGE_PAGES; i++) {
      const frame = (folio.frame + i) as PhysPage;
      this.#used.set(frame, this.#frames.folio(frame)!);
    }
  }

  *bringBack(space: Space, _area: Area, page: number, folio: Folio, huge: boolean): Steps<FaultOutcome> {
    const address = UserAddr((huge ? page - (page % HUGE_PAGES) : page) * PAGE_SIZE);
    const frame = huge ? folio.frame : space.table.frame(page);
    this.#frames.hold(folio);
    folio.locked = true;
    try {
      return yield* this.#driver.bringBack(space.memory, address, frame, huge ? HUGE_ORDER : 0);
    } finally {
      folio.locked = false;
      if (folio.held > 0) this.#frames.letGo(folio);
    }
  }

  /** The usual driver: memory of the system, a copy, done. The process waits at `address` for `page`. */
  *copyBack(
    memory: UserMemory,
    address: UserAddr,
    page: PhysPage,
    order: number,
    hooks?: CopyHooks,
  ): Steps<FaultOutcome> {
    const end = UserAddr(address + PAGE_SIZE * 2 ** order);
    const { owner } = this;
    const migration = yield* memory.collect({
      start: address,
      end,
      from: "device",
      owner,
      huge: order > 0,
      faultPage: page,
    });
    const enough = this.copyOut(migration, hooks);
    if (enough) yield* migration.move();
    migration.finish();
    return enough ? "done" : "out-of-memory";
  }

  /** Gives each page that is out a place in the system, and its contents. False: there was not memory for all. */
  copyOut(migration: PageMigration, hooks: CopyHooks = {}): boolean {
    for (let i = 0; i < migration.count; i++) {
      const source = migration.source(i);
      if (source === undefined || !migration.canMove(i)) continue;
      const order = migration.order(i) === 0 ? 0 : HUGE_ORDER;
      const pages = order === 0 ? 1 : HUGE_PAGES;
      const place = hooks.mayAllocate?.() === false ? undefined : migration.allocateSystem(order);
      if (place === undefined && order === 0) return false;
      if (place !== undefined) migration.setDestination(i, place, order);
      for (let j = 0; j < pages; j++) {
        const to = place === undefined ? migration.allocateSystem(0) : ((place + j) as PhysPage);
        if (to === undefined) return false;
        if (place === undefined) migration.setDestination(i + j, to, 0);
        hooks.leaves?.(migration.start + (i + j) * PAGE_SIZE);
        this.#copyTo((source + j) as PhysPage, to);
      }
      i += pages - 1;
    }
    return true;
  }

  /** Brings pages back to the system: all, where the memory is given up. Pages that somebody holds stay. */
  *evictSteps({ only, copy }: EvictionOptions = {}): Steps<void> {
    const going: Folio[] = [];
    for (const folio of [...this.#used.values()].sort((a, b) => a.frame - b.frame)) {
      if (folio.locked || only?.(folio.frame) === false) continue;
      this.#frames.hold(folio);
      folio.locked = true;
      unmapToMove(folio, false);
      going.push(folio);
    }
    yield TAKEN;
    for (const folio of going) {
      const place = isFree(folio) ? this.#frames.allocate(folio.order) : undefined;
      const isCopied = place !== undefined && this.#copyFolio(folio, place, copy);
      if (isCopied) place.become(folio);
      restoreEntries(folio, isCopied ? place : folio);
      folio.locked = false;
      this.#frames.letGo(folio);
      if (place) this.#frames.release(place);
    }
  }

  #copyFolio(from: Folio, to: Folio, copy: EvictionOptions["copy"]): boolean {
    if (copy) return copy(from.frame, to.frame, from.pages);
    for (let i = 0; i < from.pages; i++) this.#copyTo((from.frame + i) as PhysPage, (to.frame + i) as PhysPage);
    return true;
  }

  /** Brings all pages back to the system at once, as {@link SimulatedDeviceMemory.evictSteps} does in steps. */
  evict(): void {
    finish(this.evictSteps());
  }

  #copyTo(from: PhysPage, to: PhysPage): void {
    const bytes = new Uint8Array(PAGE_SIZE);
    this.read(from, 0, bytes);
    this.#frames.memory.write(PhysAddr(to * PAGE_SIZE), bytes);
  }
}

/** Memory that begins at an address. */
const bytesFrom = (bytes: Uint8Array, start: number) => ({
  read: (address: PhysAddr, into: Uint8Array): void =>
    into.set(bytes.subarray(address - start, address - start + into.length)),
  write: (address: PhysAddr, from: Uint8Array): void => bytes.set(from, address - start),
});

/** What a driver adds to the usual way back. */
export interface CopyHooks {
  /** False: there is no memory for this one. */
  readonly mayAllocate?: () => boolean;
  /** The page at this address leaves the device. */
  readonly leaves?: (address: number) => void;
}

/** Nobody maps it, and nobody but the work under way holds it. */
const isFree = (folio: Folio): boolean => folio.mapCount === 0 && folio.pins === 0 && folio.held === 1;

/** A page of a device that must not stay there, for a long-term pin. False: somebody holds it. */
export function* moveToSystem(frames: FrameSource, folio: Folio): Steps<boolean> {
  frames.hold(folio);
  folio.locked = true;
  unmapToMove(folio, false);
  yield TAKEN;
  const place = isFree(folio) ? frames.allocate(folio.order) : undefined;
  if (place) {
    frames.copy(folio.frame, place.frame, folio.pages);
    place.become(folio);
  }
  restoreEntries(folio, place ?? folio);
  folio.locked = false;
  frames.letGo(folio);
  return place !== undefined;
}
