/**
 * The CPU's page table of one address space: three levels, as far down as something was ever mapped.
 *
 * Idea: the levels are real, since they can be seen: a hole is as wide as the missing table, a huge page fits only where no table
 * is, and a table goes when nothing else is near. A table of 512 entries is two arrays, so a gigabyte of small pages costs
 * 512 of them and no object for each page.
 * Promises: nothing is allocated by reading. Not for: what the entries mean to folios (zap.ts, fault.ts, ...).
 */
import { assert, type PhysPage } from "../../../base/index.ts";

/** Pages in a huge page (2 MiB), and that as a power of two. */
export const HUGE_PAGES = 512;
export const HUGE_ORDER = 9;
/** Pages under one middle table (1 GiB). */
export const MIDDLE_PAGES = 262_144;

/** What an entry is: the low four bits of its state. */
export const ENTRY = {
  none: 0,
  present: 1,
  swapped: 2,
  /** A page in memory that only its device reaches. */
  devicePrivate: 3,
  /** Given up to one device for a while. */
  exclusive: 4,
  migrating: 5,
  poisoned: 6,
  /** No folio is behind it: registers. */
  special: 7,
} as const;
/** The process may write. */
export const WRITABLE = 0x10;
/** Of a moving page: it was one process's own, though read-only. */
export const KEPT = 0x20;

/** The kind of an entry's state. */
export const kindOf = (state: number): number => state & 0xf;

/** 2 MiB by one entry. */
export class HugeEntry {
  state: number;
  /** The first page. */
  frame: PhysPage;

  constructor(state: number, frame: PhysPage) {
    this.state = state;
    this.frame = frame;
  }
}

/** A table of 512 entries for pages. */
export class LeafTable {
  readonly states: Uint8Array = new Uint8Array(HUGE_PAGES);
  /** Frames, or numbers of swap slots. */
  readonly frames: Float64Array = new Float64Array(HUGE_PAGES);
  /** Entries that are not `none`. */
  used = 0;

  set(index: number, state: number, frame: number): void {
    const was = this.states[index]!;
    if (was === 0 && state !== 0) this.used++;
    else if (was !== 0 && state === 0) this.used--;
    this.states[index] = state;
    this.frames[index] = frame;
  }
}

/** What stands for 2 MiB. */
type Slot = HugeEntry | LeafTable | undefined;

class MiddleTable {
  readonly slots: Slot[] = new Array<Slot>(HUGE_PAGES).fill(undefined);
}

export class PageTable {
  readonly #middles = new Map<number, MiddleTable>();

  /** Is there a table at all for the gigabyte of `page`? */
  hasMiddle(page: number): boolean {
    return this.#middles.has(Math.floor(page / MIDDLE_PAGES));
  }

  makeMiddle(page: number): void {
    const index = Math.floor(page / MIDDLE_PAGES);
    if (!this.#middles.has(index)) this.#middles.set(index, new MiddleTable());
  }

  slot(page: number): Slot {
    return this.#middles.get(Math.floor(page / MIDDLE_PAGES))?.slots[Math.floor(page / HUGE_PAGES) % HUGE_PAGES];
  }

  setSlot(page: number, slot: Slot): void {
    this.makeMiddle(page);
    this.#middles.get(Math.floor(page / MIDDLE_PAGES))!.slots[Math.floor(page / HUGE_PAGES) % HUGE_PAGES] = slot;
  }

  /** The table of the 2 MiB of `page`; made if nothing is there. Not valid where a huge entry is. */
  makeLeaf(page: number): LeafTable {
    const slot = this.slot(page);
    if (slot instanceof LeafTable) return slot;
    assert(slot === undefined, `page ${page} has a huge entry where a table is needed`);
    const leaf = new LeafTable();
    this.setSlot(page, leaf);
    return leaf;
  }

  leaf(page: number): LeafTable | undefined {
    const slot = this.slot(page);
    return slot instanceof LeafTable ? slot : undefined;
  }

  huge(page: number): HugeEntry | undefined {
    const slot = this.slot(page);
    return slot instanceof HugeEntry ? slot : undefined;
  }

  /** The state of the entry for `page`, huge or not. */
  state(page: number): number {
    const slot = this.slot(page);
    if (slot === undefined) return 0;
    return slot instanceof HugeEntry ? slot.state : slot.states[page % HUGE_PAGES]!;
  }

  /** The frame of `page`; only of kinds that have one. */
  frame(page: number): PhysPage {
    const slot = this.slot(page);
    if (slot instanceof HugeEntry) return (slot.frame + (page % HUGE_PAGES)) as PhysPage;
    return (slot ? slot.frames[page % HUGE_PAGES]! : 0) as PhysPage;
  }

  /** Sets the entry of one page in a table that is there. */
  set(page: number, state: number, frame: number): void {
    const slot = this.slot(page);
    assert(slot instanceof LeafTable, `page ${page} has no table`);
    slot.set(page % HUGE_PAGES, state, frame);
  }

  /**
   * Frees the tables of areas [start, end) that are unmapped, where nothing else lies in [floor, ceiling): entries are none.
   */
  free(start: number, end: number, floor: number, ceiling: number): void {
    const first = Math.floor(start / HUGE_PAGES) * HUGE_PAGES;
    for (let at = first; at < end; at += HUGE_PAGES) {
      if (!this.hasMiddle(at)) {
        at = (Math.floor(at / MIDDLE_PAGES) + 1) * MIDDLE_PAGES - HUGE_PAGES;
        continue;
      }
      if (at >= floor && at + HUGE_PAGES <= ceiling) this.setSlot(at, undefined);
    }
    for (let at = Math.floor(start / MIDDLE_PAGES); at * MIDDLE_PAGES < end; at++)
      if (at * MIDDLE_PAGES >= floor && (at + 1) * MIDDLE_PAGES <= ceiling) this.#middles.delete(at);
  }

  /** All tables that are in use, for reports: 2 MiB entries that are not empty. */
  *slots(): Generator<{ readonly page: number; readonly slot: HugeEntry | LeafTable }> {
    for (const [index, { slots }] of this.#middles)
      for (let i = 0; i < HUGE_PAGES; i++) {
        const slot = slots[i];
        if (slot) yield { page: index * MIDDLE_PAGES + i * HUGE_PAGES, slot };
      }
  }
}
