/**
 * Tree: the tables of one address space in an arena, and the steps that every operation is made of.
 *
 * Idea: a table is known by its frame; entries are two words of the arena. All differences between formats are numbers
 * taken out of the layout once, so one code serves all formats at one speed.
 * Promises: a new table is zeroed before its pointer is written. Not for: ranges; see map.ts and unmap.ts.
 */
import { type Counters, ERRNO } from "../base/index.ts";
import { itemLg, PROT_COUNT, type TableLayout } from "../layouts/pagetable/index.ts";
import type { Arena } from "./arena.ts";
import { noRootTable } from "./errors.ts";
import { Gather } from "./gather.ts";
import { PageSizes } from "./page-sizes.ts";

/** What a table tells its owner while it works. */
export interface TableEvents {
  /** Invalidate the gather's interval now; its tables are released after the call returns. */
  sync?(gather: Gather): void;
  /** A table was dropped inside a call (legacy rules): forget cached table pointers over these pages now. */
  flushWalk?(iova: number, pages: number): void;
  /** Entries were written that a walker which does not snoop needs written back: a run of this many. */
  writeBack?(entries: number): void;
}

/** The leaf table that the last page went to; lets the next one skip the walk. Owned by whoever maps a range. */
export class LeafCursor {
  /** Page of the first entry, the first word of the table, and the tree's epoch when it was found. */
  firstPage = -1;
  offset = 0;
  epoch = -1;
}

const FRAME_WORDS = 1024;

export class Tree {
  readonly layout: TableLayout;
  readonly arena: Arena;
  readonly counters: Counters;
  readonly events: TableEvents;
  readonly sizes: PageSizes;
  /** Sync before a gather would span a gap. */
  readonly keepGaps: boolean;
  readonly cursor: LeafCursor = new LeafCursor();
  readonly mapGather: Gather = new Gather();
  /** Grows when a table is detached, so that cursors into it end. */
  epoch = 0;
  topLevel: number;
  root: number;
  mappedPages = 0;
  readonly leafLow: Int32Array = new Int32Array(PROT_COUNT);
  readonly leafHigh: Int32Array = new Int32Array(PROT_COUNT);
  readonly refusal: Int32Array = new Int32Array(PROT_COUNT);
  readonly sizeLow: Int32Array = new Int32Array(64);
  readonly sizeHigh: Int32Array = new Int32Array(64);
  readonly levelLg: Int32Array = new Int32Array(8);
  readonly inverse: Float64Array = new Float64Array(8);
  readonly tableMatch: Int32Array = new Int32Array(8);
  readonly tableLow: Int32Array = new Int32Array(8);
  readonly tableHigh: Int32Array = new Int32Array(8);
  readonly presentMask: number;
  readonly tableMask: number;
  readonly indexMask: number;
  readonly topMask: number;
  readonly fixedTop: number;
  /** Pages that the input and the output addresses have. */
  readonly inputPages: number;
  readonly outputPages: number;
  readonly tableOrder: number;
  readonly topOrder: number;
  readonly shift: number;
  readonly highScale: number;
  readonly highMask: number;
  readonly fold: boolean;
  readonly lowFrameMask: number;
  readonly baseLow: number;

  constructor(layout: TableLayout, arena: Arena, counters: Counters, events: TableEvents, keepGaps: boolean) {
    this.layout = layout;
    this.arena = arena;
    this.counters = counters;
    this.events = events;
    this.keepGaps = keepGaps;
    this.sizes = new PageSizes(layout.leafSizes);
    this.topLevel = layout.topLevel;
    for (let prot = 0; prot < PROT_COUNT; prot++) {
      const leaf = layout.leaf(prot);
      if (typeof leaf === "number") this.refusal[prot] = leaf;
      else {
        this.leafLow[prot] = leaf.low;
        this.leafHigh[prot] = leaf.high;
      }
    }
    for (const lg of layout.leafSizes) {
      const { low, high } = layout.size(lg);
      this.sizeLow[lg] = low;
      this.sizeHigh[lg] = high;
    }
    for (let level = 0; level < 8; level++) {
      this.levelLg[level] = itemLg(layout, level);
      this.inverse[level] = 2 ** -itemLg(layout, level);
      this.tableMatch[level] = layout.tableMatch[level] ?? -1;
      if (level === 0) continue;
      const table = layout.table(level);
      this.tableLow[level] = table.low;
      this.tableHigh[level] = table.high;
    }
    this.presentMask = layout.presentMask;
    this.tableMask = layout.tableMask;
    this.indexMask = 2 ** layout.indexBits - 1;
    this.topMask = 2 ** layout.topIndexBits - 1;
    this.fixedTop = layout.topLevel;
    this.inputPages = 2 ** (layout.inputBits - 12);
    this.outputPages = 2 ** (layout.outputBits - 12);
    this.tableOrder = Math.max(0, layout.indexBits - 9);
    this.topOrder = Math.max(0, layout.topIndexBits - 9);
    this.shift = layout.addressShift;
    this.highScale = 2 ** (this.shift - 32);
    this.highMask = layout.addressHighMask;
    this.fold = layout.addressFold;
    this.lowFrameMask = layout.addressLowMask >>> this.shift;
    this.baseLow = arena.basePage % 2 ** 20;
    this.root = arena.allocate(this.topOrder);
    if (this.root < 0) throw noRootTable(1 << this.topOrder, arena.framesInUse);
    counters.tablePagesAllocated += 1 << this.topOrder;
  }

  /** Index of `page` in its table at `level`. */
  indexAt(page: number, level: number): number {
    const lg = this.levelLg[level]!;
    const index = lg <= 18 ? page >>> lg : Math.floor(page * this.inverse[level]!);
    if (level === this.fixedTop && level === this.topLevel) return index & this.topMask;
    return index & this.indexMask;
  }

  entriesAt(level: number): number {
    return level === this.fixedTop && level === this.topLevel ? this.topMask + 1 : this.indexMask + 1;
  }

  isPresent(low: number): boolean {
    return (low & this.presentMask) !== 0;
  }

  /** Valid for a present entry. */
  isTable(low: number, level: number): boolean {
    return level > 0 && (low & this.tableMask) === this.tableMatch[level]!;
  }

  /** Frame of the table that `low` points to; the arena has fewer than 2^20 frames, so 20 bits tell it. */
  frameOf(low: number): number {
    return (((low >>> this.shift) & this.lowFrameMask) - this.baseLow) & 0xfffff;
  }

  lowOf(page: number): number {
    const low = page << this.shift;
    return this.fold ? low | (Math.floor(page / 0x10_0000_0000) << 12) : low;
  }

  highOf(page: number): number {
    return Math.floor(page * this.highScale) & this.highMask;
  }

  /** High word first: the entry appears as a whole when its low word does. `at` is the place in words. */
  write(at: number, low: number, high: number): void {
    const { words } = this.arena;
    words[at + 1] = high;
    words[at] = low;
  }

  clear(at: number): void {
    const { words } = this.arena;
    words[at] = 0;
    words[at + 1] = 0;
  }

  /** The table at `level` that covers `page`, made if need be: its first word; a negative errno. */
  tableFor(page: number, level: number): number {
    let offset = this.root * FRAME_WORDS;
    for (let at = this.topLevel; at > level; at--) {
      const entry = offset + this.indexAt(page, at) * 2;
      const low = this.arena.words[entry]!;
      if ((low & this.presentMask) === 0) {
        const frame = this.arena.allocate(this.tableOrder);
        if (frame < 0) return -ERRNO.ENOMEM;
        this.counters.tablePagesAllocated += 1 << this.tableOrder;
        this.pointTo(entry, frame, at);
        offset = frame * FRAME_WORDS;
      } else if (this.isTable(low, at)) offset = this.frameOf(low) * FRAME_WORDS;
      else if (this.layout.rules !== "legacy") return -ERRNO.EADDRINUSE;
      else {
        this.events.writeBack?.(1); // a block carries no mark that says it was written back
        return -ERRNO.EEXIST;
      }
    }
    return offset;
  }

  /** Writes a table pointer at word `entry` of a table at `level`. */
  pointTo(entry: number, frame: number, level: number): void {
    const page = this.arena.basePage + frame;
    this.write(entry, this.lowOf(page) | this.tableLow[level]!, this.highOf(page) | this.tableHigh[level]!);
    this.counters.tableEntriesWritten++;
    this.events.writeBack?.(1);
  }

  /** Frees a table and everything below it, at once. */
  freeSubtree(frame: number, level: number): void {
    if (level > 0) {
      const entries = this.entriesAt(level);
      for (let i = 0; i < entries; i++) {
        const low = this.arena.words[frame * FRAME_WORDS + i * 2]!;
        if (this.isPresent(low) && this.isTable(low, level)) this.freeSubtree(this.frameOf(low), level - 1);
      }
    }
    const order = level === this.topLevel ? this.topOrder : this.tableOrder;
    this.arena.release(frame, order);
    this.counters.tablePagesFreed += 1 << order;
    this.epoch++;
  }

  /** Are these pages inside the addresses this tree has? */
  contains(start: number, pages: number): boolean {
    const { inputs } = this.layout;
    const end = start + pages;
    const all = 2 ** 52;
    if (inputs === "low") return end <= this.inputPages;
    if (inputs === "upper") return start >= all - this.inputPages && end <= all;
    const width = this.inputPages; // as Linux checks it: the start says which half, the end only the width
    return start < width / 2 ? end <= width : start >= all - width && end <= all;
  }

  /** Syncs a gather now and gives its tables back. */
  sync(gather: Gather): void {
    if (gather.pending) this.events.sync?.(gather);
    this.counters.tablePagesFreed += gather.releaseTables(this.arena);
    gather.reset();
  }

  /** Adds to a gather by the tree's rule for gaps. */
  addToGather(gather: Gather, start: number, pages: number): void {
    if (this.keepGaps && gather.isDisjoint(start, pages)) this.sync(gather);
    gather.add(start, pages);
  }
}
