/**
 * Map: writes leaves over a range, largest first, a table at a time.
 *
 * Idea: choose a size, find the table that holds it, fill as many items as it has, go on.
 * Promises: arguments are refused before anything is written; after an error `tree.mappedPages` tells the prefix that is
 * mapped. A large leaf over tables without a live leaf takes their place, and they are invalidated before they are free.
 * Specified by: behaviour of Linux 7.2 (generic page tables; Arm's driver behind the legacy splitter).
 */
import { ERRNO } from "../base/index.ts";
import type { Gather } from "./gather.ts";
import { offsetIn, POW2 } from "./page-sizes.ts";
import type { LeafCursor, Tree } from "./tree.ts";

const FRAME_WORDS = 1024;

/**
 * 0, or a negative errno. A single page in the table that the cursor remembers needs no walk; everything else takes the
 * general path.
 */
export function map(tree: Tree, iova: number, phys: number, pages: number, prot: number, cursor: LeafCursor): number {
  if (pages === 1 && cursor.take(prot) && cursor.mapPage(iova, phys, prot)) {
    tree.mappedPages = 1;
    return 0;
  }
  return mapRange(tree, iova, phys, pages, prot, cursor);
}

/**
 * `count` pages, `frames[i]` each, at consecutive addresses in the table that the cursor remembers. How many were mapped: it
 * stops where the table ends, something is mapped, or a page is odd.
 */
export function mapPages(
  tree: Tree,
  iova: number,
  frames: Int32Array,
  from: number,
  count: number,
  prot: number,
  cursor: LeafCursor,
): number {
  const index = iova - cursor.firstPage;
  const low = tree.pageLow[prot]!;
  if (cursor.epoch !== tree.epoch || !(index >= 0 && index < 512) || (low & tree.presentMask) === 0) return 0;
  const room = Math.min(count, 512 - index);
  const done = fillFrames(tree, cursor.offset + (index | 0) * 2, frames, from, room, low, tree.pageHigh[prot]!);
  tree.counters.leavesWritten += done;
  tree.mappedPages = done;
  return done;
}

/** Writes `count` entries from word `at` on, up to one that is present or a frame that is too high; how many. */
function fillFrames(
  tree: Tree,
  at: number,
  frames: Int32Array,
  from: number,
  count: number,
  low: number,
  high: number,
): number {
  const { words } = tree.arena;
  const { presentMask, longFrame, shift, upShift } = tree;
  if (shift === 12) return fillFrames12(words, at, frames, from, count, low, high, presentMask, longFrame);
  for (let i = 0; i < count; i++) {
    const entry = at + i * 2;
    const frame = frames[from + i]!;
    if ((words[entry]! & presentMask) !== 0 || (frame & longFrame) !== 0) return i;
    words[entry + 1] = (frame >>> upShift) | high;
    words[entry] = (frame << shift) | low;
  }
  return count;
}

/**
 * The same for the formats whose entries hold an address as it is, with its bit 12 at bit 12 (all but RISC-V's): shifts by
 * constants, two entries in a turn, and "| 0" where an index cannot overflow: 0.8 of the instructions.
 */
function fillFrames12(
  words: Int32Array,
  at: number,
  frames: Int32Array,
  from: number,
  count: number,
  low: number,
  high: number,
  presentMask: number,
  longFrame: number,
): number {
  let entry = at | 0;
  let next = from | 0;
  const end = (from + count) | 0;
  const lastPair = (end - 1) | 0;
  while (next < lastPair) {
    const a = frames[next]!;
    const b = frames[(next + 1) | 0]!;
    const second = (entry + 2) | 0;
    if (((words[entry]! | words[second]!) & presentMask) !== 0 || ((a | b) & longFrame) !== 0) break;
    words[(entry + 1) | 0] = (a >>> 20) | high;
    words[entry] = (a << 12) | low;
    words[(entry + 3) | 0] = (b >>> 20) | high;
    words[second] = (b << 12) | low;
    entry = (entry + 4) | 0;
    next = (next + 2) | 0;
  }
  for (; next < end; next = (next + 1) | 0) {
    const frame = frames[next]!;
    if ((words[entry]! & presentMask) !== 0 || (frame & longFrame) !== 0) break;
    words[(entry + 1) | 0] = (frame >>> 20) | high;
    words[entry] = (frame << 12) | low;
    entry = (entry + 2) | 0;
  }
  return next - from;
}

/** The long way of {@link map}: any size, any layout, all checks. */
export function mapRange(
  tree: Tree,
  iova: number,
  phys: number,
  pages: number,
  prot: number,
  cursor: LeafCursor,
): number {
  tree.mappedPages = 0;
  const refused = refusal(tree, iova, phys, pages, prot);
  if (refused !== 0) return refused;
  if (tree.grows) {
    const error = growTop(tree, iova, phys, pages);
    if (error !== 0) return error;
  }
  let error = 0;
  let done = 0;
  while (done < pages && error === 0) {
    const left = pages - done;
    const lg = left === 1 && tree.granuleLg === 0 ? 0 : tree.sizes.best(iova + done, phys + done, left);
    if (lg < 0) {
      error = tree.legacy ? -ERRNO.EINVAL : -ERRNO.ENXIO;
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
  const { legacy, granuleLg } = tree;
  const forbidden = tree.refusal[prot & 63]!;
  if (forbidden !== 0 && !legacy) return forbidden;
  if (pages < 1) return -ERRNO.EINVAL;
  if (iova + pages > 2 ** 52) return legacy ? -ERRNO.ERANGE : -ERRNO.EOVERFLOW;
  if (!tree.contains(iova, pages) || !(phys >= 0 && phys + pages < tree.outputLimit + 1)) return -ERRNO.ERANGE;
  const aligned =
    offsetIn(iova, granuleLg) === 0 && offsetIn(phys, granuleLg) === 0 && offsetIn(pages, granuleLg) === 0;
  return aligned ? forbidden : -ERRNO.EINVAL;
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
  const level = lg === tree.granuleLg ? 0 : Math.floor((lg - tree.granuleLg) / tree.indexBits);
  const index = tree.indexAt(iova, level);
  let offset: number;
  const firstPage = iova - index;
  if (level === 0 && tree.quick && cursor.firstPage === firstPage && cursor.epoch === tree.epoch)
    offset = cursor.offset;
  else {
    offset = tree.tableFor(iova, level);
    if (offset < 0) return offset;
    if (level === 0 && tree.quick) cursor.remember(tree, firstPage, offset, prot);
  }
  const items = 1 << (lg - tree.levelLg[level]!);
  const leaves = Math.min(count, ((tree.entriesAt(level) - index) / items) | 0);
  const at = offset + index * 2;
  if (tree.legacy) {
    const error = makeRoomAtOnce(tree, at, level, leaves, iova);
    if (error !== 0) return error;
  }
  const size = lg < 31 ? 1 << lg : POW2[lg]!; // pages stay small integers, and so do cursor and count
  const written = writeLeaves(tree, at, level, items, leaves, iova, phys, lg, prot);
  if (written > 0) {
    tree.counters.leavesWritten += written * items;
    tree.mappedPages += written * size;
    tree.events.writeBack?.(written * items);
  }
  return written < leaves ? -ERRNO.EADDRINUSE : 0;
}

/** Writes leaves from word `at` on until something live is in the way; the number of leaves written. */
function writeLeaves(
  tree: Tree,
  at: number,
  level: number,
  items: number,
  leaves: number,
  iova: number,
  phys: number,
  lg: number,
  prot: number,
): number {
  const { words } = tree.arena;
  const { presentMask, highStep } = tree;
  const attributesLow = tree.leafLow[prot]! | tree.sizeLow[lg]!;
  const attributesHigh = tree.leafHigh[prot]! | tree.sizeHigh[lg]!;
  const size = POW2[lg]!;
  const step = size << tree.shift; // what the low word grows by; 0 where a leaf is larger than the low word can say
  let written = 0;
  while (written < leaves) {
    const page = phys + written * size;
    const high = tree.highOf(page) | attributesHigh;
    const alike = size > highStep ? 1 : (highStep + 1 - (page & highStep)) / size; // leaves with the same high word
    const end = Math.min(leaves, written + alike);
    let low = tree.lowOf(page) | attributesLow;
    if (items === 1) {
      written += fillFree(words, at + written * 2, end - written, presentMask, low, high, step);
      if (written < end && makeRoom(tree, at + written * 2, level, 1, iova + written * size) !== 0) return written;
      continue;
    }
    for (; written < end; written++) {
      const entry = at + written * items * 2;
      if (makeRoom(tree, entry, level, items, iova + written * size) !== 0) return written;
      for (let i = 0; i < items; i++) {
        words[entry + i * 2 + 1] = high;
        words[entry + i * 2] = low;
      }
      low = (low + step) | 0;
    }
  }
  return written;
}

/** Writes `count` leaves of one item each, up to an entry that is present; how many. The low word grows by `step`. */
function fillFree(
  words: Int32Array,
  at: number,
  count: number,
  presentMask: number,
  low: number,
  high: number,
  step: number,
): number {
  let entry = at | 0;
  let next = low | 0;
  for (let i = 0; i < count; i++) {
    if ((words[entry]! & presentMask) !== 0) return i;
    words[entry + 1] = high;
    words[entry] = next;
    next = (next + step) | 0;
    entry = (entry + 2) | 0;
  }
  return count;
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
    detach(tree, tree.frameOf(low), level - 1, gather);
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

/** Hands a table and everything below it to `gather`; its pointer is already gone. */
export function detach(tree: Tree, frame: number, level: number, gather: Gather): void {
  if (level > 0) {
    const entries = tree.entriesAt(level);
    for (let i = 0; i < entries; i++) {
      const low = tree.arena.words[frame * FRAME_WORDS + i * 2]!;
      if (tree.isPresent(low) && tree.isTable(low, level)) detach(tree, tree.frameOf(low), level - 1, gather);
    }
  }
  gather.tables.push(frame);
  gather.tableLevels |= 1 << (level + 1);
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
  tree.noteTop();
  return 0;
}
