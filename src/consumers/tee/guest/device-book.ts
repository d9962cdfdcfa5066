/**
 * What one device can reach of its guest's memory, counted: nothing may be left of it when its trust changes.
 *
 * Idea: stands between the device's doors and the guest's own book of pages, and counts what passes; what bounces and what is in
 * page tables is asked where it is kept. Promises: a door that took everything back leaves zeros.
 */
import { type Counters, type PhysAddr, PhysPage, pagesTouched } from "../../../base/index.ts";
import type { Dma } from "../../../dma/index.ts";
import type { MemoryEncryption } from "../../../platform/index.ts";

/** What is live of a device. */
export interface LiveMappings {
  /** Private pages mapped where they lie. */
  readonly privatePages: number;
  /** Shared pages mapped where they lie. */
  readonly sharedPages: number;
  /** Mappings through bounce buffers. */
  readonly bounces: number;
  /** Pages of memory that both sides use, converted for the device. */
  readonly convertedPages: number;
  /** Leaves in the device's page table. */
  readonly tableEntries: number;
  /** Ranges of its address space that are reserved. */
  readonly ranges: number;
}

/** The book of one device, as its doors' {@link MemoryEncryption}. */
export class DeviceBook implements MemoryEncryption {
  readonly #guest: MemoryEncryption;
  readonly #mapped = { private: 0, shared: 0 };
  #converted = 0;
  #doors: Dma[] = [];
  #table: Counters | undefined;

  constructor(guest: MemoryEncryption) {
    this.#guest = guest;
  }

  get sharedBit(): number | undefined {
    return this.#guest.sharedBit;
  }

  isPrivate(page: PhysPage): boolean {
    return this.#guest.isPrivate(page);
  }

  mapped(phys: PhysAddr, length: number): void {
    this.#count(phys, length, 1);
    this.#guest.mapped?.(phys, length);
  }

  unmapped(phys: PhysAddr, length: number): void {
    this.#count(phys, length, -1);
    this.#guest.unmapped?.(phys, length);
  }

  /** For memory that a door allocates. */
  convert(page: PhysPage, pages: number, to: "shared" | "private"): boolean {
    const done = this.#guest.convert(page, pages, to);
    // Pages that could not be made private again are lost, and not the device's any more.
    if (to === "private") this.#converted -= pages;
    else if (done) this.#converted += pages;
    return done;
  }

  /** A door was opened. */
  addDoor(door: Dma): void {
    this.#doors.push(door);
  }

  /** All doors are over; what they held is counted on until it is given back. */
  forgetIdleDoors(): void {
    this.#doors = this.#doors.filter(({ device }) => device.bounces > 0);
  }

  /** The device has a page table of its own from here on; none, if undefined. */
  useTable(counters: Counters | undefined): void {
    this.#table = counters;
  }

  get live(): LiveMappings {
    const table = this.#table;
    return {
      privatePages: this.#mapped.private,
      sharedPages: this.#mapped.shared,
      bounces: this.#doors.reduce((sum, { device }) => sum + device.bounces, 0),
      convertedPages: this.#converted,
      tableEntries: table ? table.leavesWritten - table.leavesCleared : 0,
      ranges: table ? table.iovaAllocations - table.iovaFrees : 0,
    };
  }

  #count(phys: PhysAddr, length: number, by: 1 | -1): void {
    const kind = this.#guest.isPrivate(PhysPage.of(phys)) ? "private" : "shared";
    this.#mapped[kind] += by * pagesTouched(phys, length);
  }
}

/** What is live, in words; empty if nothing is. */
export function liveInWords(live: LiveMappings): string {
  const parts: [number, string][] = [
    [live.privatePages, "private pages mapped"],
    [live.sharedPages, "shared pages mapped"],
    [live.bounces, "bounce buffers"],
    [live.convertedPages, "pages of memory for both sides"],
    [live.tableEntries, "page-table entries"],
    [live.ranges, "address ranges"],
  ];
  return parts
    .filter(([count]) => count > 0)
    .map(([count, what]) => `${count} ${what}`)
    .join(", ");
}
