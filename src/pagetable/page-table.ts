/**
 * Page table: one device address space in memory that an IOMMU walks.
 *
 * Idea: one tree, one code for every format (tree.ts); this class is its face in page numbers.
 * Promises: map, unmap and look-up allocate nothing; a refused request changes nothing; tables that an unmap detaches
 * wait in its gather until the caller says that the invalidation is done.
 * Not for: two overlapping operations at once; telling the IOTLB (the owner does).
 * Specified by: behaviour of Linux 7.2 page tables; judged by test/golden/pagetable.
 */
import type { Counters, IovaPage, PhysPage } from "../base/index.ts";
import { ERRNO } from "../base/index.ts";
import { outputOf, type TableLayout } from "../layouts/pagetable/index.ts";
import type { Arena } from "./arena.ts";
import { readDirty } from "./dirty.ts";
import type { Gather } from "./gather.ts";
import { map } from "./map.ts";
import { type LeafCursor, type TableEvents, Tree } from "./tree.ts";
import { unmap } from "./unmap.ts";

export interface PageTableOptions {
  readonly layout: TableLayout;
  readonly memory: Arena;
  readonly counters: Counters;
  readonly events?: TableEvents;
  /** Invalidate what a gather holds before it would span a gap, instead of merging. */
  readonly keepGaps?: boolean;
}

/** Where an address leads, and the entry that says so. */
export interface Translation {
  readonly phys: PhysPage;
  /** First page and size of the leaf. */
  readonly leafStart: IovaPage;
  readonly leafPages: number;
  readonly leafPhys: PhysPage;
  readonly prot: number;
  readonly dirty: boolean;
  readonly level: number;
  /** The item that holds the address. */
  readonly table: PhysPage;
  readonly index: number;
  readonly low: number;
  readonly high: number;
}

/** One present entry, in depth-first order. */
export interface TableEntry {
  readonly level: number;
  /** Indexes from the root. */
  readonly path: readonly number[];
  readonly low: number;
  readonly high: number;
  readonly leaf: boolean;
  readonly table: PhysPage;
}

const FRAME_WORDS = 1024;

export class PageTable {
  readonly layout: TableLayout;
  readonly #tree: Tree;

  /** Takes the top table; throws ERR_DMA_TABLE_MEMORY (ENOMEM) when there is no room for it. */
  constructor(options: PageTableOptions) {
    this.layout = options.layout;
    this.#tree = new Tree(
      options.layout,
      options.memory,
      options.counters,
      options.events ?? {},
      options.keepGaps ?? false,
    );
  }

  /** Physical page of the top table, and its level; both change when the top grows. */
  get root(): PhysPage {
    return (this.#tree.arena.basePage + this.#tree.root) as PhysPage;
  }

  get topLevel(): number {
    return this.#tree.topLevel;
  }

  /** Pages that the last {@link map} mapped; after an error, the prefix that stands. */
  get mappedPages(): number {
    return this.#tree.mappedPages;
  }

  /**
   * Maps `pages` from `iova` to `phys`. 0, or: -EINVAL (no permission, or one the format lacks; no pages), -EOVERFLOW
   * (wraps), -ERANGE (outside the input or output addresses), -ENXIO (no size fits), -EADDRINUSE (Arm: -EEXIST; a live
   * leaf is there), -ENOMEM. `cursor` remembers the leaf table between calls. One store per page.
   */
  map(iova: IovaPage, phys: PhysPage, pages: number, prot: number, cursor: LeafCursor = this.#tree.cursor): number {
    return map(this.#tree, iova, phys, pages, prot, cursor);
  }

  /**
   * Maps `count` runs, `physPages[i]` for `pages[i]` pages, at consecutive addresses from `iova`, in one call. Answers
   * like {@link map}; `mappedPages` counts over all runs.
   */
  mapRuns(
    iova: IovaPage,
    physPages: Float64Array,
    pages: Int32Array,
    count: number,
    prot: number,
    cursor: LeafCursor = this.#tree.cursor,
  ): number {
    let mapped = 0;
    let error = 0;
    for (let i = 0; i < count && error === 0; i++) {
      error = map(this.#tree, iova + mapped, physPages[i]!, pages[i]!, prot, cursor);
      mapped += this.#tree.mappedPages;
    }
    this.#tree.mappedPages = mapped;
    return error;
  }

  /** Maps byte addresses of an ABI, refusing what is not whole pages: -ENXIO (Arm: -EINVAL), -EINVAL for no bytes. */
  mapBytes(iova: bigint, phys: bigint, length: bigint, prot: number): number {
    const tree = this.#tree;
    tree.mappedPages = 0;
    if (length === 0n) return -ERRNO.EINVAL;
    if (((iova | phys | length) & 0xfffn) !== 0n) return this.layout.rules === "legacy" ? -ERRNO.EINVAL : -ERRNO.ENXIO;
    return map(tree, Number(iova >> 12n), Number(phys >> 12n), Number(length >> 12n), prot, tree.cursor);
  }

  /**
   * Unmaps from `iova`; the pages unmapped: fewer at a hole or inside a larger leaf, more when the last leaf reaches
   * past the end. What must be invalidated is added to `gather`.
   */
  unmap(iova: IovaPage, pages: number, gather: Gather): number {
    return unmap(this.#tree, iova, pages, gather);
  }

  /** The invalidation of `gather` has been issued and is done: its tables are free, and it is empty. */
  complete(gather: Gather): void {
    this.#tree.counters.tablePagesFreed += gather.releaseTables(this.#tree.arena);
    gather.reset();
  }

  /** The physical page behind `page`, or -1. Allocates nothing. */
  lookup(page: IovaPage): PhysPage | -1 {
    const tree = this.#tree;
    if (!reaches(tree, page)) return -1;
    const { words } = tree.arena;
    let offset = tree.root * FRAME_WORDS;
    for (let level = tree.topLevel; level >= 0; level--) {
      const at = offset + tree.indexAt(page, level) * 2;
      const low = words[at]!;
      if (!tree.isPresent(low)) return -1;
      if (tree.isTable(low, level)) offset = tree.frameOf(low) * FRAME_WORDS;
      else {
        const lg = this.layout.sizeOf(low, words[at + 1]!, level);
        const span = 2 ** lg;
        return (outputOf(this.layout, low, words[at + 1]!, lg) + (page % span)) as PhysPage;
      }
    }
    return -1;
  }

  /** All that there is to say about one page, or undefined. */
  translate(page: IovaPage): Translation | undefined {
    const tree = this.#tree;
    const { layout } = this;
    if (!reaches(tree, page)) return undefined;
    const { words } = tree.arena;
    let frame = tree.root;
    for (let level = tree.topLevel; level >= 0; level--) {
      const index = tree.indexAt(page, level);
      const low = words[frame * FRAME_WORDS + index * 2]! | 0;
      const high = words[frame * FRAME_WORDS + index * 2 + 1]! | 0;
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

  /** Every present entry, depth first, ascending. */
  *entries(): Generator<TableEntry> {
    yield* this.#below(this.#tree.root, this.#tree.topLevel, []);
  }

  /**
   * Calls `report` for every dirty leaf in the range, with the pages from where the range meets it; with `clear` makes
   * them clean and adds them to `gather`, which the caller must invalidate before it trusts the next reading.
   * 0, or -EOPNOTSUPP (the format has no dirty bits), -ERANGE, -EINVAL (Arm: a hole; what came before is reported).
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

  /** Frees every table, whatever is mapped. The hardware must be off it, and flushed. */
  destroy(): void {
    this.#tree.freeSubtree(this.#tree.root, this.#tree.topLevel);
  }

  *#below(frame: number, level: number, path: readonly number[]): Generator<TableEntry> {
    const tree = this.#tree;
    const entries = tree.entriesAt(level);
    for (let index = 0; index < entries; index++) {
      const low = tree.arena.words[frame * FRAME_WORDS + index * 2]! | 0;
      const high = tree.arena.words[frame * FRAME_WORDS + index * 2 + 1]! | 0;
      if (!tree.isPresent(low)) continue;
      const leaf = !tree.isTable(low, level);
      const here = [...path, index];
      yield { level, path: here, low, high, leaf, table: (tree.arena.basePage + frame) as PhysPage };
      if (!leaf) yield* this.#below(tree.frameOf(low), level - 1, here);
    }
  }
}

/** Can the tree say anything about `page`? A top that has not grown yet says nothing about what lies above it. */
function reaches(tree: Tree, page: number): boolean {
  if (!tree.contains(page, 1)) return false;
  return tree.layout.maxTopLevel === tree.layout.topLevel || page < 2 ** (9 * (tree.topLevel + 1));
}
