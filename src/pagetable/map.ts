/**
 * Map: writes leaves over a range, largest first, a table at a time.
 *
 * Idea: choose a size, find the table that holds it, fill as many items as it has, go on.
 * Promises: arguments are refused before anything is written; after an error `tree.mappedPages` tells the prefix that is
 * mapped. A large leaf over tables without a live leaf takes their place, and they are invalidated before they are free.
 * Specified by: behaviour of Linux 7.2 (generic page tables; Arm's driver behind the legacy splitter).
 */
import { ERRNO } from "../base/index.ts";
import { POW2 } from "./page-sizes.ts";
import type { LeafCursor, Tree } from "./tree.ts";

const FRAME_WORDS = 1024;

/** 0, or a negative errno. */
export function map(tree: Tree, iova: number, phys: number, pages: number, prot: number, cursor: LeafCursor): number {
  tree.mappedPages = 0;
  const refused = refusal(tree, iova, phys, pages, prot);
  if (refused !== 0) return refused;
  const { layout } = tree;
  if (layout.maxTopLevel > layout.topLevel) {
    const error = growTop(tree, iova, phys, pages);
    if (error !== 0) return error;
  }
  let error = 0;
  let done = 0;
  while (done < pages && error === 0) {
    const left = pages - done;
    const lg = left === 1 && layout.granuleLg === 0 ? 0 : tree.sizes.best(iova + done, phys + done, left);
    if (lg < 0) {
      error = layout.rules === "legacy" ? -ERRNO.EINVAL : -ERRNO.ENXIO;
      break;
    }
    const count = left === 1 ? 1 : tree.sizes.count(lg, iova + done, phys + done, left);
    error = fillTable(tree, iova + done, phys + done, lg, count, prot, cursor);
    done = tree.mappedPages;
  }
  if (tree.mapGather.end !== 0) tree.sync(tree.mapGather);
  return error;
}

function refusal(tree: Tree, iova: number, phys: number, pages: number, prot: number): number {
  const { layout } = tree;
  const legacy = layout.rules === "legacy";
  const forbidden = tree.refusal[prot & 63]!;
  if (forbidden !== 0 && !legacy) return forbidden;
  if (pages < 1) return -ERRNO.EINVAL;
  if (iova + pages > 2 ** 52) return legacy ? -ERRNO.ERANGE : -ERRNO.EOVERFLOW;
  if (!tree.contains(iova, pages) || phys + pages > tree.outputPages) return -ERRNO.ERANGE;
  if (layout.granuleLg > 0) {
    const granule = POW2[layout.granuleLg]!;
    if (iova % granule !== 0 || phys % granule !== 0 || pages % granule !== 0) return -ERRNO.EINVAL;
  }
  return forbidden;
}

/** Maps at most `count` leaves of 2^lg pages, as far as one table goes; advances `tree.mappedPages`. */
function fillTable(
  tree: Tree,
  iova: number,
  phys: number,
  lg: number,
  count: number,
  prot: number,
  cursor: LeafCursor,
): number {
  const { layout, counters } = tree;
  const level = lg === layout.granuleLg ? 0 : Math.floor((lg - layout.granuleLg) / layout.indexBits);
  const index = tree.indexAt(iova, level);
  let offset: number;
  if (level === 0) {
    const firstPage = iova - index * POW2[layout.granuleLg]!;
    if (cursor.firstPage === firstPage && cursor.epoch === tree.epoch) offset = cursor.offset;
    else {
      offset = tree.tableFor(iova, 0);
      if (offset < 0) return offset;
      cursor.firstPage = firstPage;
      cursor.offset = offset;
      cursor.epoch = tree.epoch;
    }
  } else {
    offset = tree.tableFor(iova, level);
    if (offset < 0) return offset;
  }
  const items = 1 << (lg - tree.levelLg[level]!);
  const leaves = Math.min(count, ((tree.entriesAt(level) - index) / items) | 0);
  const low = tree.leafLow[prot]! | tree.sizeLow[lg]!;
  const high = tree.leafHigh[prot]! | tree.sizeHigh[lg]!;
  const at = offset + index * 2;
  if (layout.rules === "legacy") {
    const error = makeRoomAtOnce(tree, at, level, leaves, iova);
    if (error !== 0) return error;
  }
  const size = POW2[lg]!;
  const { words } = tree.arena;
  const { presentMask } = tree;
  let written = 0;
  let error = 0;
  for (; written < leaves; written++) {
    const page = phys + written * size;
    const entry = at + written * items * 2;
    if (level === 0 && items === 1) {
      if ((words[entry]! & presentMask) !== 0) error = -ERRNO.EADDRINUSE;
    } else error = makeRoom(tree, entry, level, items, iova + written * size);
    if (error !== 0) break;
    const leafLow = tree.lowOf(page) | low;
    const leafHigh = tree.highOf(page) | high;
    for (let i = 0; i < items; i++) {
      words[entry + i * 2 + 1] = leafHigh;
      words[entry + i * 2] = leafLow;
    }
  }
  if (written > 0) {
    counters.leavesWritten += written * items;
    tree.mappedPages += written * size;
    tree.events.writeBack?.(written * items);
  }
  return error;
}

/** Legacy rules: a live leaf refuses; a table is dropped with all below it, at once. In order, as they come. */
function makeRoomAtOnce(tree: Tree, at: number, level: number, count: number, iova: number): number {
  const { words } = tree.arena;
  const size = POW2[tree.levelLg[level]!]!;
  for (let i = 0; i < count; i++) {
    const low = words[at + i * 2]!;
    if (!tree.isPresent(low)) continue;
    if (!tree.isTable(low, level)) return -ERRNO.EEXIST;
    tree.clear(at + i * 2);
    tree.counters.tableEntriesWritten++;
    tree.events.writeBack?.(1);
    tree.events.flushWalk?.(iova + i * size, size);
    tree.freeSubtree(tree.frameOf(low), level - 1);
    tree.events.writeBack?.(1);
  }
  return 0;
}

/** Generic rules: tables without a live leaf make room; anything live refuses, and then nothing is changed. */
function makeRoom(tree: Tree, at: number, level: number, items: number, iova: number): number {
  const { words } = tree.arena;
  let tables = false;
  for (let i = 0; i < items; i++) {
    const low = words[at + i * 2]!;
    if (!tree.isPresent(low)) continue;
    if (!tree.isTable(low, level) || hasLeaf(tree, tree.frameOf(low), level - 1)) return -ERRNO.EADDRINUSE;
    tables = true;
  }
  if (!tables) return 0;
  const size = POW2[tree.levelLg[level]!]!;
  const gather = tree.mapGather;
  for (let i = 0; i < items; i++) {
    const low = words[at + i * 2]!;
    if (!tree.isPresent(low)) continue;
    tree.clear(at + i * 2);
    tree.counters.tableEntriesWritten++;
    tree.events.writeBack?.(1);
    tree.addToGather(gather, iova + i * size, size);
    detach(tree, tree.frameOf(low), level - 1);
  }
  tree.epoch++;
  return 0;
}

function hasLeaf(tree: Tree, frame: number, level: number): boolean {
  const entries = tree.entriesAt(level);
  for (let i = 0; i < entries; i++) {
    const low = tree.arena.words[frame * FRAME_WORDS + i * 2]!;
    if (!tree.isPresent(low)) continue;
    if (!tree.isTable(low, level) || hasLeaf(tree, tree.frameOf(low), level - 1)) return true;
  }
  return false;
}

function detach(tree: Tree, frame: number, level: number): void {
  if (level > 0) {
    const entries = tree.entriesAt(level);
    for (let i = 0; i < entries; i++) {
      const low = tree.arena.words[frame * FRAME_WORDS + i * 2]!;
      if (tree.isPresent(low) && tree.isTable(low, level)) detach(tree, tree.frameOf(low), level - 1);
    }
  }
  tree.mapGather.tables.push(frame);
  tree.mapGather.tableLevels |= 1 << (level + 1);
}

/** Makes the top high enough for the range and its first leaf. All new tops or none. */
function growTop(tree: Tree, iova: number, phys: number, pages: number): number {
  const lg = tree.sizes.best(iova, phys, pages);
  let wanted = tree.topLevel;
  const { maxTopLevel } = tree.layout;
  while (wanted < maxTopLevel && (iova + pages > POW2[9 * (wanted + 1)]! || lg >= 9 * (wanted + 1))) wanted++;
  if (wanted === tree.topLevel) return 0;
  const { root, topLevel } = tree;
  for (let level = topLevel + 1; level <= wanted; level++) {
    const frame = tree.arena.allocate();
    if (frame < 0) {
      while (tree.root !== root) {
        const upper = tree.root;
        tree.root = tree.frameOf(tree.arena.words[upper * FRAME_WORDS]!);
        tree.arena.release(upper);
        tree.counters.tablePagesAllocated--;
        tree.counters.tableEntriesWritten--;
      }
      tree.topLevel = topLevel;
      return -ERRNO.ENOMEM;
    }
    tree.counters.tablePagesAllocated++;
    tree.pointTo(frame * FRAME_WORDS, tree.root, level);
    tree.root = frame;
    tree.topLevel = level;
  }
  return 0;
}
