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
import { offsetIn, PageSizes } from "./page-sizes.ts";

/** What a table tells its owner while it works. */
export interface TableEvents {
  /** Invalidate the gather's interval now; its tables are released after the call returns. */
  sync?(gather: Gather): void;
  /** A table was dropped inside a call (legacy rules): forget cached table pointers over these pages now. */
  flushWalk?(iova: number, pages: number): void;
  /** Entries were written that a walker which does not snoop needs written back: a run of this many. */
  writeBack?(entries: number): void;
}

/**
 * The leaf table that the last page went to; lets the next one skip the walk. Owned by whoever maps a range, for one table.
 * Valid while `epoch` is the tree's; only tables of 512 single pages are remembered, and only for walkers that snoop.
 */
export class LeafCursor {
  /** Page that the table's first entry maps; below every page, and near none, while nothing is remembered. */
  firstPage = -0x4000_0000;
  /** Word of the arena where the table begins. */
  offset = 0;
  epoch = -1;
  /** Set with `firstPage`. */
  tree: Tree | undefined = undefined;
  /** What the last page was mapped with, and an entry of it but for the address: the next one mostly has the same. */
  #prot = -1;
  #low = 0;
  #high = 0;

  /** From here on the table of which word `offset` is the first, and page `firstPage` the first. */
  remember(tree: Tree, firstPage: number, offset: number, prot: number): void {
    if (this.tree !== tree) {
      this.tree = tree;
      this.#prot = -1;
    }
    this.firstPage = firstPage;
    this.offset = offset;
    this.epoch = tree.epoch;
    this.take(prot);
  }

  /** Makes ready for pages with `prot`; false where there is no table yet, or its format refuses them. */
  take(prot: number): boolean {
    if (this.#prot === prot) return true;
    const { tree } = this;
    if (tree === undefined) return false;
    const low = tree.pageLow[prot]!;
    if ((low & tree.presentMask) === 0) return false;
    this.#prot = prot;
    this.#low = low;
    this.#high = tree.pageHigh[prot]!;
    return true;
  }

  /**
   * Maps one page in the table that is remembered; false, with nothing changed, if the page lies in another one or is mapped,
   * or `phys` is too high for the shortest way ({@link Tree.longFrame}), or `prot` is not what the cursor is ready for. `tree.mappedPages` stays
   * as it was.
   *
   * Small integers only, one object, and no look-up of what the page before had too: with it, and what else became small integers
   * in a link, two-step takes 0.84 of the instructions.
   */
  mapPage(iova: number, phys: number, prot: number): boolean {
    const index = iova - this.firstPage;
    if (!(index >= 0 && index < 512 && this.#prot === prot)) return false;
    const tree = this.tree!; // some page is near
    const frame = phys | 0;
    if (!(frame === phys && (frame & tree.longFrame) === 0 && this.epoch === tree.epoch)) return false;
    const { words } = tree.arena;
    const at = this.offset + ((index | 0) << 1);
    if ((words[at]! & tree.presentMask) !== 0) return false;
    words[at + 1] = (frame >>> tree.upShift) | this.#high;
    words[at] = (frame << tree.shift) | this.#low;
    tree.counters.leavesWritten++;
    return true;
  }
}

const FRAME_WORDS = 1024;
const FRAME_LG = 10;

/** Bits 20 to 51 of a page. */
export const upperBits = (page: number): number => (page < 0x8000_0000 ? (page | 0) >> 20 : (page * 2 ** -20) | 0);

/**
 * Fields without a value are only declared: defined, they would first hold `undefined`, and the engine would check at each
 * use that they are small integers by now.
 */
export class Tree {
  declare readonly layout: TableLayout;
  declare readonly arena: Arena;
  declare readonly counters: Counters;
  declare readonly events: TableEvents;
  declare readonly sizes: PageSizes;
  /** Sync before a gather would span a gap. */
  declare readonly keepGaps: boolean;
  readonly cursor: LeafCursor = new LeafCursor();
  readonly mapGather: Gather = new Gather();
  /** Grows when a table is detached, so that cursors into it end. */
  epoch = 0;
  declare topLevel: number;
  declare root: number;
  mappedPages = 0;
  readonly leafLow: Int32Array = new Int32Array(PROT_COUNT);
  readonly leafHigh: Int32Array = new Int32Array(PROT_COUNT);
  readonly refusal: Int32Array = new Int32Array(PROT_COUNT);
  readonly sizeLow: Int32Array = new Int32Array(64);
  readonly sizeHigh: Int32Array = new Int32Array(64);
  /** Leaves of the smallest size, complete but for the address; no bit set where the format refuses `prot`. */
  readonly pageLow: Int32Array = new Int32Array(PROT_COUNT);
  readonly pageHigh: Int32Array = new Int32Array(PROT_COUNT);
  /** By level: log2 of the pages under one item, its inverse as a factor, the largest index. */
  readonly levelLg: Int32Array = new Int32Array(8);
  readonly inverse: Float64Array = new Float64Array(8);
  readonly indexMask: Int32Array = new Int32Array(8);
  readonly tableMatch: Int32Array = new Int32Array(8);
  readonly tableLow: Int32Array = new Int32Array(8);
  readonly tableHigh: Int32Array = new Int32Array(8);
  declare readonly presentMask: number;
  declare readonly tableMask: number;
  declare readonly contiguousLow: number;
  declare readonly contiguousHigh: number;
  declare readonly legacy: boolean;
  declare readonly grows: boolean;
  declare readonly inputs: TableLayout["inputs"];
  declare readonly granuleLg: number;
  declare readonly indexBits: number;
  /** Leaf tables have 512 single pages, and nobody waits to hear of each write: the short ways are open. */
  declare readonly quick: boolean;
  /** Runs of up to this many pages inside one leaf table are single pages, however they are aligned. */
  declare readonly plainPages: number;
  /** Pages after which the high word of an entry changes, less one. */
  declare readonly highStep: number;
  /** Pages that the input and the output addresses have. */
  declare readonly inputPages: number;
  /** Less half a page: a field that is always a fraction stays a double, which is cheaper to compare with. */
  declare readonly outputLimit: number;
  /** Bits that a page to be mapped the shortest way must not have: a small integer (below 8 TiB) within the output addresses. */
  declare readonly longFrame: number;
  /** A pointer from `level` has `(low & pointerMask) === pointerMatch + level * pointerStep`, and nothing else has. */
  declare readonly pointerMask: number;
  declare readonly pointerMatch: number;
  declare readonly pointerStep: number;
  /** Every table has 512 entries, the smallest pages are 4 KiB, and there are three levels or more. */
  declare readonly nineBits: boolean;
  /** Part of one leaf table may be cleared without a descent. */
  declare readonly clearsQuickly: boolean;
  /** Pages below this need no further check of their address before a walk; less half a page, as above. */
  walkLimit = 0.5;
  declare readonly tableOrder: number;
  declare readonly topOrder: number;
  declare readonly shift: number;
  declare readonly upShift: number;
  declare readonly highScale: number;
  declare readonly highMask: number;
  declare readonly fold: boolean;
  declare readonly addressLowMask: number;
  /** The bits of a leaf that are neither address nor size. */
  declare readonly keepLow: number;
  declare readonly keepHigh: number;
  declare readonly lowFrameMask: number;
  declare readonly baseLow: number;

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
    let sizeBitsLow = layout.addressFold ? 0xf000 : 0;
    let sizeBitsHigh = 0;
    for (const lg of layout.leafSizes) {
      const { low, high } = layout.size(lg);
      this.sizeLow[lg] = low;
      this.sizeHigh[lg] = high;
      sizeBitsLow |= low;
      sizeBitsHigh |= high;
    }
    this.keepLow = ~(layout.addressLowMask | sizeBitsLow);
    this.keepHigh = ~(layout.addressHighMask | sizeBitsHigh);
    for (let prot = 0; prot < PROT_COUNT; prot++) {
      if (this.refusal[prot] !== 0) continue;
      this.pageLow[prot] = this.leafLow[prot]! | this.sizeLow[layout.granuleLg]!;
      this.pageHigh[prot] = this.leafHigh[prot]! | this.sizeHigh[layout.granuleLg]!;
    }
    for (let level = 0; level < 8; level++) {
      this.levelLg[level] = itemLg(layout, level);
      this.inverse[level] = 2 ** -itemLg(layout, level);
      this.indexMask[level] = 2 ** (level === layout.topLevel ? layout.topIndexBits : layout.indexBits) - 1;
      this.tableMatch[level] = layout.tableMatch[level] ?? -1;
      if (level === 0) continue;
      const table = layout.table(level);
      this.tableLow[level] = table.low;
      this.tableHigh[level] = table.high;
    }
    this.presentMask = layout.presentMask;
    this.tableMask = layout.tableMask;
    this.contiguousLow = layout.contiguousLow;
    this.contiguousHigh = layout.contiguousHigh;
    this.legacy = layout.rules === "legacy";
    this.grows = layout.maxTopLevel > layout.topLevel;
    this.inputs = layout.inputs;
    this.granuleLg = layout.granuleLg;
    this.indexBits = layout.indexBits;
    this.quick =
      layout.granuleLg === 0 && layout.indexBits === 9 && layout.topLevel > 0 && events.writeBack === undefined;
    this.nineBits =
      layout.granuleLg === 0 && layout.indexBits === 9 && layout.topIndexBits === 9 && layout.topLevel > 1;
    this.clearsQuickly = this.nineBits && !this.legacy && events.writeBack === undefined;
    const larger = this.sizes.next(layout.granuleLg);
    this.plainPages = this.legacy ? 1 : Math.min(512, larger < 0 ? 512 : 2 ** larger - 1);
    this.inputPages = 2 ** (layout.inputBits - 12);
    this.outputLimit = 2 ** (layout.outputBits - 12) - 0.5;
    this.longFrame = layout.outputBits >= 43 ? 1 << 31 : -(1 << (layout.outputBits - 12));
    this.pointerMask = layout.presentMask | layout.tableMask;
    this.pointerStep = layout.maxTopLevel > 1 ? (this.tableLow[2]! - this.tableLow[1]!) | 0 : 0;
    this.pointerMatch = ((this.tableLow[1]! & this.pointerMask) - this.pointerStep) | 0;
    this.tableOrder = Math.max(0, layout.indexBits - 9);
    this.topOrder = Math.max(0, layout.topIndexBits - 9);
    this.shift = layout.addressShift;
    this.upShift = 32 - this.shift;
    this.highScale = 2 ** (this.shift - 32);
    this.highStep = 2 ** (32 - this.shift) - 1;
    this.highMask = layout.addressHighMask;
    this.addressLowMask = layout.addressLowMask;
    this.fold = layout.addressFold;
    this.lowFrameMask = layout.addressLowMask >>> this.shift;
    this.baseLow = (arena.basePage % 2 ** 20) | 0;
    this.root = arena.allocate(this.topOrder);
    if (this.root < 0) throw noRootTable(1 << this.topOrder, arena.framesInUse);
    counters.tablePagesAllocated += 1 << this.topOrder;
    this.noteTop();
  }

  /** Sets what follows from the level of the top table. */
  noteTop(): void {
    const { inputs, inputPages } = this;
    const end = inputs === "upper" ? 0 : inputs === "low" ? inputPages : inputPages / 2;
    this.walkLimit = Math.min(end, this.grows ? 2 ** (9 * (this.topLevel + 1)) : end) - 0.5;
  }

  /** Index of `page` in its table at `level`. */
  indexAt(page: number, level: number): number {
    return this.indexIn(page | 0, upperBits(page), level);
  }

  /** The same of a page that is already split into its low 32 bits and {@link upperBits}. */
  indexIn(lower: number, upper: number, level: number): number {
    const lg = this.levelLg[level]!;
    return (lg <= 18 ? lower >>> lg : upper >>> (lg - 20)) & this.indexMask[level]!;
  }

  entriesAt(level: number): number {
    return this.indexMask[level]! + 1;
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

  /** First word of the table that `low` points to. */
  tableAt(low: number): number {
    return this.frameOf(low) << FRAME_LG;
  }

  /**
   * First word of the leaf table that covers `page`, or -1 when there is none: the walk, unrolled. For trees with {@link nineBits}, and pages
   * below {@link walkLimit}.
   */
  leafTable(page: number): number {
    const { words } = this.arena;
    const pointerMask = this.pointerMask | 0; // "| 0": as plain integers from here on, not checked at each use
    const pointerMatch = this.pointerMatch | 0;
    const pointerStep = this.pointerStep | 0;
    const shift = this.shift | 0;
    const baseLow = this.baseLow | 0;
    const topLevel = this.topLevel | 0;
    const lower = page | 0;
    let offset = this.root << FRAME_LG;
    const upper = upperBits(page);
    let low = 0;
    if (topLevel > 2) {
      if (topLevel > 3) {
        if (topLevel > 4) {
          low = words[offset + (((upper >>> 25) & 511) << 1)]!;
          if ((low & pointerMask) !== pointerMatch + 5 * pointerStep) return -1;
          offset = (((low >>> shift) - baseLow) & 0xfffff) << FRAME_LG;
        }
        low = words[offset + (((upper >>> 16) & 511) << 1)]!;
        if ((low & pointerMask) !== pointerMatch + 4 * pointerStep) return -1;
        offset = (((low >>> shift) - baseLow) & 0xfffff) << FRAME_LG;
      }
      low = words[offset + (((upper >>> 7) & 511) << 1)]!;
      if ((low & pointerMask) !== pointerMatch + 3 * pointerStep) return -1;
      offset = (((low >>> shift) - baseLow) & 0xfffff) << FRAME_LG;
    }
    low = words[offset + (((lower >>> 18) & 511) << 1)]!;
    if ((low & pointerMask) !== pointerMatch + 2 * pointerStep) return -1;
    offset = (((low >>> shift) - baseLow) & 0xfffff) << FRAME_LG;
    low = words[offset + (((lower >>> 9) & 511) << 1)]!;
    if ((low & pointerMask) !== pointerMatch + pointerStep) return -1;
    return (((low >>> shift) - baseLow) & 0xfffff) << FRAME_LG;
  }

  lowOf(page: number): number {
    const low = page << this.shift;
    return this.fold ? low | (Math.floor(page / 0x10_0000_0000) << 12) : low;
  }

  highOf(page: number): number {
    return page < 0x8000_0000 ? ((page | 0) >>> this.upShift) & this.highMask : (page * this.highScale) & this.highMask;
  }

  /** log2 of the pages of the leaf `low`, `high` found at `level`. */
  leafLg(low: number, high: number, level: number): number {
    const plain = (low & this.contiguousLow) === 0 && (high & this.contiguousHigh) === 0;
    return plain ? this.levelLg[level]! : this.layout.sizeOf(low, high, level);
  }

  /** The physical page that `page` has in the leaf `low`, `high` found at `level`. */
  physIn(low: number, high: number, level: number, page: number): number {
    let phys = ((low & this.addressLowMask) >>> this.shift) + (high & this.highMask) * (this.highStep + 1);
    if (this.fold) phys += ((low >>> 12) & 15) * 0x10_0000_0000;
    const lg = this.leafLg(low, high, level);
    return lg === 0 ? phys : phys - offsetIn(phys, lg) + offsetIn(page, lg);
  }

  /** Can the tree say anything about `page`? A top that has not grown yet says nothing about what lies above it. */
  reaches(page: number): boolean {
    if (!(page >= 0) || !this.contains(page, 1)) return false;
    return !this.grows || page < 2 ** (9 * (this.topLevel + 1));
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
      else if (!this.legacy) return -ERRNO.EADDRINUSE;
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
    if (!(start >= 0)) return false;
    const { inputs } = this;
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
