/**
 * Page table: one device address space in memory that an IOMMU walks.
 *
 * Idea: the work is done by tree.ts and the files around it, one code for every format; this class offers it in page
 * numbers.
 * Promises: map, unmap and look-up make no objects; a refused request changes nothing; tables that an unmap detaches
 * wait in its gather until the caller says that the invalidation is done.
 * Not for: two overlapping operations at once; telling the IOTLB (the owner does).
 * Specified by: behaviour of Linux 7.2 page tables; judged by test/golden/pagetable.
 */
import { type Counters, ERRNO, type IovaPage, type PhysPage } from "../base/index.ts";
import { outputOf, type TableLayout } from "../layouts/pagetable/index.ts";
import type { Arena } from "./arena.ts";
import { readDirty } from "./dirty.ts";
import { arenaTooHigh } from "./errors.ts";
import type { Gather } from "./gather.ts";
import { map, mapPages } from "./map.ts";
import { mapRuns } from "./map-runs.ts";
import { type RunSink, readRuns } from "./read-runs.ts";
import { collapse, split } from "./split-collapse.ts";
import { type LeafCursor, type TableEvents, Tree, upperBits } from "./tree.ts";
import { unmap } from "./unmap.ts";

/** A format, and the memory for its tables. */
export interface PageTableOptions {
  /** The format. */
  readonly layout: TableLayout;
  /** Where its tables lie. */
  readonly memory: Arena;
  /** Counted into: entries written and cleared, tables taken and freed. */
  readonly counters: Counters;
  /** Called where entries must be written back for a walker that does not snoop, and where a range must be invalidated at once. */
  readonly events?: TableEvents;
  /** Invalidate what a gather holds before it would span a gap, instead of merging. */
  readonly keepGaps?: boolean;
}

/** Where an address leads, and the entry that says so. */
export interface Translation {
  /** The page that the asked one reaches. */
  readonly phys: PhysPage;
  /** First page of the leaf. */
  readonly leafStart: IovaPage;
  /** Pages that the leaf maps. */
  readonly leafPages: number;
  /** Page that the first page of the leaf reaches. */
  readonly leafPhys: PhysPage;
  /** What the leaf allows, as `map` takes it. */
  readonly prot: number;
  /** A device has written there; false where the format cannot say. */
  readonly dirty: boolean;
  /** Of the table that it is in; 0 is the smallest. */
  readonly level: number;
  /** The table with the item that holds the address. */
  readonly table: PhysPage;
  /** Which item of that table. */
  readonly index: number;
  /** Bits 31:0 of the item, as a signed number. */
  readonly low: number;
  /** Bits 63:32 of the item, as a signed number. */
  readonly high: number;
}

/** One present entry, in depth-first order. */
export interface TableEntry {
  /** Of its table; 0 is the smallest. */
  readonly level: number;
  /** Indexes from the root. */
  readonly path: readonly number[];
  /** Bits 31:0, as a signed number. */
  readonly low: number;
  /** Bits 63:32, as a signed number. */
  readonly high: number;
  /** It maps memory; else it points to a table. */
  readonly leaf: boolean;
  /** The table that it is in. */
  readonly table: PhysPage;
}

const FRAME_WORDS = 1024;

/**
 * A page table of any format: map, unmap, look up, split, collapse, read what was written. Answers are 0 or a negative
 * errno; entries equal Linux 7.2's to the bit. Pages are of 4 KiB.
 */
export class PageTable {
  /** What its entries mean. */
  readonly layout: TableLayout;
  readonly #tree: Tree;

  /**
   * Takes the top table.
   *
   * @throws DmaError ERR_DMA_TABLE_MEMORY (ENOMEM) when there is no room for it, ERR_DMA_TABLE_ARENA (ERANGE) when entries of
   * this layout cannot point to all of the memory
   */
  constructor(options: PageTableOptions) {
    const { layout, memory } = options;
    const lastPage = memory.basePage + memory.capacityFrames - 1;
    const reachable = outputOf(layout, -1, -1); // an address field of all ones
    if (lastPage > reachable) throw arenaTooHigh(layout.name, lastPage, reachable);
    this.layout = layout;
    this.#tree = new Tree(
      options.layout,
      options.memory,
      options.counters,
      options.events ?? {},
      options.keepGaps ?? false,
    );
  }

  /** Physical page of the top table; another one once the top has grown (AMD v1). */
  get root(): PhysPage {
    return (this.#tree.arena.basePage + this.#tree.root) as PhysPage;
  }

  /** Level of the top table: one less than the levels a walk takes. Grows with {@link root}. */
  get topLevel(): number {
    return this.#tree.topLevel;
  }

  /** Pages that the last {@link map}, {@link mapRuns} or {@link mapBytes} mapped; after an error, the prefix that stands. */
  get mappedPages(): number {
    return this.#tree.mappedPages;
  }

  /**
   * Maps `pages` from page `iova` on to physical pages from `phys` on, by the largest leaves that fit; `prot` is a set of
   * READ, WRITE and their kin. 0, or a negative errno, checked in this order before anything is written:
   * -EINVAL (no permission or one the format lacks; no pages; not a multiple of the format's smallest page), -EOVERFLOW
   * (past the last page there is), -ERANGE (outside the input or output addresses), -ENXIO (no size of leaf fits). While
   * writing: -EADDRINUSE (a live leaf is there; Arm: -EEXIST), -ENOMEM. What {@link mappedPages} says then stands, and so
   * do tables made on the way, empty until used, unmapped with their surroundings, or destroyed.
   *
   * Arm replaces a table by a block even if the table has live leaves, as Linux does: check before if that matters.
   * Cost: one store per item written, a walk per table, none for a single page in the table that `cursor` remembers.
   */
  map(iova: IovaPage, phys: PhysPage, pages: number, prot: number, cursor: LeafCursor = this.#tree.cursor): number {
    return map(this.#tree, iova, phys, pages, prot, cursor);
  }

  /** {@link LeafCursor.mapPage} for `count` pages of `frames` from number `from` on, at consecutive addresses. How many were mapped. */
  mapPages(iova: number, frames: Int32Array, from: number, count: number, prot: number, cursor: LeafCursor): number {
    return mapPages(this.#tree, iova, frames, from, count, prot, cursor);
  }

  /**
   * Maps `count` runs, `physPages[i]` for `pages[i]` pages, at consecutive addresses from page `iova` on: the same as one
   * {@link map} each, in one call. Errors as there; the first ends it, and `mappedPages` counts over all runs.
   *
   * Cost: one store per item; a walk per table.
   */
  mapRuns(
    iova: IovaPage,
    physPages: Float64Array,
    pages: Int32Array,
    count: number,
    prot: number,
    cursor: LeafCursor = this.#tree.cursor,
  ): number {
    return mapRuns(this.#tree, iova, physPages, pages, count, prot, cursor);
  }

  /**
   * {@link map} for the byte addresses and the length of an ABI. What is not whole pages is refused: -ENXIO (Arm: -EINVAL);
   * -EINVAL for no bytes. Cost: that of `map` and a few conversions from bigint.
   */
  mapBytes(iova: bigint, phys: bigint, length: bigint, prot: number): number {
    const tree = this.#tree;
    tree.mappedPages = 0;
    if (length === 0n) return -ERRNO.EINVAL;
    if (((iova | phys | length) & 0xfffn) !== 0n) return this.layout.rules === "legacy" ? -ERRNO.EINVAL : -ERRNO.ENXIO;
    return map(tree, Number(iova >> 12n), Number(phys >> 12n), Number(length >> 12n), prot, tree.cursor);
  }

  /**
   * Unmaps `pages` from page `iova` on; the pages unmapped: fewer where it meets a hole or starts inside a larger leaf
   * (0 if at once, or for a range outside the addresses), more when the last leaf reaches past the end. No error, no
   * failure. What must be invalidated is added to `gather`, tables that the range covers whole are detached into it.
   * Arm: a table under a whole block goes with all it has; part of a block is refused (0).
   *
   * Cost: one pass over the entries, one walk.
   */
  unmap(iova: IovaPage, pages: number, gather: Gather): number {
    return unmap(this.#tree, iova, pages, gather);
  }

  /**
   * The invalidation of `gather` has been issued and is done: its tables are free for others, and it is empty. Nothing
   * happens for an empty one. Cost: a few stores per table.
   */
  complete(gather: Gather): void {
    this.#tree.counters.tablePagesFreed += gather.releaseTables(this.#tree.arena);
    gather.reset();
  }

  /**
   * The physical page that page `page` leads to, or -1 when it leads nowhere (also outside the addresses).
   * Cost: one load per level.
   */
  lookup(page: IovaPage): PhysPage | -1 {
    return lookup(this.#tree, page) as PhysPage | -1;
  }

  /**
   * Adds the pages that [`page`, + `pages`) leads to to `sink`, as runs. How many pages: fewer than asked before a hole, and when
   * its arrays are full. Cost: one load per item, a walk per table; no objects.
   */
  readRuns(page: IovaPage, pages: number, sink: RunSink): number {
    return readRuns(this.#tree, page, pages, sink);
  }

  /** All that there is to say about one page, or undefined when nothing is mapped there. Makes an object; not for hot paths. */
  translate(page: IovaPage): Translation | undefined {
    const tree = this.#tree;
    const { layout } = this;
    if (!tree.reaches(page)) return undefined;
    const { words } = tree.arena;
    let frame = tree.root;
    for (let level = tree.topLevel; level >= 0; level--) {
      const index = tree.indexAt(page, level);
      const low = words[frame * FRAME_WORDS + index * 2]!;
      const high = words[frame * FRAME_WORDS + index * 2 + 1]!;
      if (!tree.isPresent(low)) return undefined;
      if (tree.isTable(low, level)) {
        frame = tree.frameOf(low);
        continue;
      }
      const leafPages = 2 ** layout.sizeOf(low, high, level);
      const leafPhys = outputOf(layout, low, high, layout.sizeOf(low, high, level));
      const rule = layout.dirty;
      return {
        phys: (leafPhys + (page % leafPages)) as PhysPage,
        leafStart: (page - (page % leafPages)) as IovaPage,
        leafPages,
        leafPhys,
        prot: layout.prot(low, high),
        dirty:
          rule !== undefined &&
          (low & rule.mask) === rule.match &&
          (rule.highMask === undefined || (high & rule.highMask) !== 0),
        level,
        table: (tree.arena.basePage + frame) as PhysPage,
        index,
        low,
        high,
      };
    }
    return undefined;
  }

  /** Every present entry, depth first, ascending; read-only. An object per entry: for tests, dumps and pictures. */
  *entries(): Generator<TableEntry> {
    yield* this.#below(this.#tree.root, this.#tree.topLevel, []);
  }

  /**
   * Calls `report` for every dirty leaf in the `pages` from page `iova` on, with the pages from where the range meets it to
   * the leaf's end; with `clear` makes them clean and adds them to `gather`, which the caller must invalidate before it
   * trusts the next reading. 0, or -EOPNOTSUPP (the format has no dirty bits), -ERANGE, -EINVAL (no pages; Arm: a hole, what
   * came before it is reported). Cost: a walk per leaf or hole.
   */
  readDirty(
    iova: IovaPage,
    pages: number,
    clear: boolean,
    gather: Gather,
    report: (iova: IovaPage, pages: number) => void,
  ): number {
    return readDirty(this.#tree, iova, pages, clear, gather, report);
  }

  /**
   * The leaf that covers page `page` becomes leaves of the largest size of at most `leafPages` pages; nothing happens if it
   * is small enough. Every address keeps its translation, permissions and dirty state at every moment; the leaf's range is
   * added to `gather`. 0, or, with nothing changed: -ERANGE, -EINVAL (no leaf is that small), -ENOENT (nothing is mapped),
   * -ENOMEM. An Arm unit must be able to change block sizes without a break (BBM level 2) if it is live.
   *
   * Cost: one store per new item; 512 tables to split 1 GiB into pages.
   */
  split(page: IovaPage, leafPages: number, gather: Gather): number {
    return split(this.#tree, page, leafPages, gather);
  }

  /**
   * Everything in [`page`, + `leafPages`) becomes one leaf, if it is mapped without a hole to consecutive, aligned physical
   * pages with the same attributes; nothing happens if a leaf that large is there. Translation and permissions stay at
   * every moment; the leaf is dirty if any was. Its range and the tables it replaces are added to `gather`. 0, or, with
   * nothing changed: -EINVAL (not a size of this format, or `page` not aligned to it), -ERANGE, -ENOENT (a hole),
   * -ENXIO (cannot be one leaf). Arm: as {@link split}; the tables are freed at once, as its other operations do.
   *
   * Cost: one load per entry below, one store per item.
   */
  collapse(page: IovaPage, leafPages: number, gather: Gather): number {
    return collapse(this.#tree, page, leafPages, gather);
  }

  /** Frees every table, whatever is mapped; the page table is over. The hardware must be off it, and flushed. */
  destroy(): void {
    this.#tree.freeSubtree(this.#tree.root, this.#tree.topLevel);
  }

  *#below(frame: number, level: number, path: readonly number[]): Generator<TableEntry> {
    const tree = this.#tree;
    const entries = tree.entriesAt(level);
    for (let index = 0; index < entries; index++) {
      const low = tree.arena.words[frame * FRAME_WORDS + index * 2]!;
      const high = tree.arena.words[frame * FRAME_WORDS + index * 2 + 1]!;
      if (!tree.isPresent(low)) continue;
      const leaf = !tree.isTable(low, level);
      const here = [...path, index];
      yield { level, path: here, low, high, leaf, table: (tree.arena.basePage + frame) as PhysPage };
      if (!leaf) yield* this.#below(tree.frameOf(low), level - 1, here);
    }
  }
}

function lookup(tree: Tree, page: number): number {
  if (page >= 0 && page < tree.walkLimit && tree.nineBits) {
    const table = tree.leafTable(page);
    if (table >= 0) {
      const { words } = tree.arena;
      const at = table + ((page & 511) << 1);
      const low = words[at]!;
      const high = words[at + 1]!;
      if ((low & tree.presentMask) === 0) return -1;
      if ((low & tree.contiguousLow) === 0 && (high & tree.contiguousHigh) === 0) {
        const upper = high & tree.highMask;
        const lower = (low & tree.addressLowMask) >>> tree.shift;
        return upper <= 255 ? (upper << tree.upShift) + lower : upper * (tree.highStep + 1) + lower;
      }
    }
  }
  return lookupAnywhere(tree, page);
}

/** The walk of {@link lookup} for every layout, and every size of leaf. */
function lookupAnywhere(tree: Tree, page: number): number {
  if (!tree.reaches(page)) return -1;
  const { words } = tree.arena;
  const lower = page | 0;
  const upper = upperBits(page);
  let offset = tree.root * FRAME_WORDS;
  for (let level = tree.topLevel; ; level--) {
    const at = offset + tree.indexIn(lower, upper, level) * 2;
    const low = words[at]!;
    if (!tree.isPresent(low)) return -1;
    if (!tree.isTable(low, level)) return tree.physIn(low, words[at + 1]!, level, page);
    offset = tree.tableAt(low);
  }
}
