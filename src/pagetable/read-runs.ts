/**
 * Read runs: where a range of addresses leads, as runs of physical pages, at the price of reading its entries.
 *
 * Idea: page numbers that a table holds need not be kept beside it; whoever unmaps reads them back. One descent for each table,
 * a tight loop over single pages, one step for each larger leaf; neighbours join as they come.
 * Promises: makes no objects; stops at a hole, at the end of the range, or where the caller's arrays are full.
 * Not for: permissions and dirty bits; see {@link PageTable.translate}.
 */
import { offsetIn, POW2 } from "./page-sizes.ts";
import type { Tree } from "./tree.ts";

const FRAME_WORDS = 1024;

/** Runs of physical pages in the caller's arrays, as far as they go. */
export interface RunSink {
  frames: Float64Array;
  counts: Int32Array;
  /** Runs that are in the arrays. The next page may join the last. */
  length: number;
  /** Pages of all runs. */
  pages: number;
}

/** Adds the pages behind [page, + pages) to `sink`. How many: fewer than asked before a hole, and when the arrays are full. */
export function readRuns(tree: Tree, page: number, pages: number, sink: RunSink): number {
  const end = page + pages;
  let at = page;
  while (at < end && tree.reaches(at)) {
    const next = readTable(tree, at, end, sink);
    if (next === at) break;
    at = next;
  }
  sink.pages += at - page;
  return at - page;
}

/** Reads from the table that holds the leaf of `page`; the first page that it did not read. */
function readTable(tree: Tree, page: number, end: number, sink: RunSink): number {
  const { words } = tree.arena;
  let offset = tree.root * FRAME_WORDS;
  let level = tree.topLevel;
  for (; level > 0; level--) {
    const low = words[offset + tree.indexAt(page, level) * 2]!;
    if (!tree.isPresent(low)) return page;
    if (!tree.isTable(low, level)) break;
    offset = tree.tableAt(low);
  }
  const index = tree.indexAt(page, level);
  const items = tree.entriesAt(level) - index;
  if (level === 0 && tree.granuleLg === 0 && !tree.fold)
    return page + readSingles(tree, offset + index * 2, Math.min(items, end - page), sink, page);
  return readLeaves(tree, offset, level, page, end, sink);
}

/** Leaves of any size in one table. */
function readLeaves(tree: Tree, offset: number, level: number, page: number, end: number, sink: RunSink): number {
  const { words } = tree.arena;
  const stop = Math.min(end, page - offsetIn(page, tree.levelLg[level]!) + itemsAfter(tree, page, level));
  let at = page;
  while (at < stop) {
    const entry = offset + tree.indexAt(at, level) * 2;
    const low = words[entry]!;
    const high = words[entry + 1]!;
    if (!tree.isPresent(low) || tree.isTable(low, level)) break;
    const size = POW2[tree.leafLg(low, high, level)]!;
    const count = Math.min(size - (at % size), end - at);
    if (!add(sink, tree.physIn(low, high, level, at), count)) break;
    at += count;
  }
  return at;
}

/** Pages under the items of the table from the one of `page` on. */
const itemsAfter = (tree: Tree, page: number, level: number): number =>
  (tree.entriesAt(level) - tree.indexAt(page, level)) * POW2[tree.levelLg[level]!]!;

/** Items of a leaf table from word `at` on, up to a hole or until the arrays are full. How many were read. */
function readSingles(tree: Tree, at: number, count: number, sink: RunSink, page: number): number {
  let done = 0;
  while (done < count) {
    done += readPlain(tree, at + done * 2, count - done, sink);
    if (done === count) break;
    // Part of a contiguous leaf, or a page that lies very high: item by item. Or a hole, or no room.
    const low = tree.arena.words[at + done * 2]!;
    const high = tree.arena.words[at + done * 2 + 1]!;
    if (!tree.isPresent(low) || !add(sink, tree.physIn(low, high, 0, page + done), 1)) break;
    done++;
  }
  return done;
}

/** The plain pages among them, up to the first item that is something else: one loop over local integers. */
function readPlain(tree: Tree, at: number, count: number, sink: RunSink): number {
  const { words } = tree.arena;
  const { frames, counts } = sink;
  const presentMask = tree.presentMask | 0;
  const contiguousLow = tree.contiguousLow | 0;
  const contiguousHigh = tree.contiguousHigh | 0;
  const addressLowMask = tree.addressLowMask | 0;
  const highMask = tree.highMask | 0;
  const shift = tree.shift | 0;
  const upShift = tree.upShift | 0;
  const most = highMask & (2 ** (31 - upShift) - 1);
  const room = frames.length | 0;
  let runs = sink.length | 0;
  const last = runs > 0 ? frames[runs - 1]! + counts[runs - 1]! : -1;
  let next = last < 0x7fff_ffff ? last | 0 : -1;
  let entry = at | 0;
  let i = 0;
  for (; i < count; i++) {
    const low = words[entry]!;
    const high = words[entry + 1]!;
    const upper = high & highMask;
    if ((low & presentMask) === 0 || ((low & contiguousLow) | (high & contiguousHigh)) !== 0 || upper > most) break;
    const phys = (upper << upShift) | ((low & addressLowMask) >>> shift) | 0;
    if (phys === next) counts[runs - 1]!++;
    else {
      if (runs === room) break;
      frames[runs] = phys;
      counts[runs] = 1;
      runs = (runs + 1) | 0;
    }
    next = (phys + 1) | 0;
    entry = (entry + 2) | 0;
  }
  sink.length = runs;
  return i;
}

/** False: no room. */
function add(sink: RunSink, phys: number, count: number): boolean {
  const last = sink.length - 1;
  if (last >= 0 && sink.frames[last]! + sink.counts[last]! === phys) sink.counts[last]! += count;
  else {
    if (sink.length === sink.frames.length) return false;
    sink.frames[sink.length] = phys;
    sink.counts[sink.length++] = count;
  }
  return true;
}
