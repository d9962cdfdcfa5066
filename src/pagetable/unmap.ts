/**
 * Unmap: clears leaves over a range, and detaches the tables that the range covers whole.
 *
 * Idea: one descent, a run of leaves at a time; a hole, or a start inside a larger leaf, stops it; a last leaf that reaches
 * past the end goes whole. Part of one leaf table, the common case, is found by a walk and cleared at once.
 * Promises: never fails, never allocates except room in the gather; detached tables wait in the gather.
 * Specified by: behaviour of Linux 7.2 (generic page tables; Arm's driver behind the legacy splitter).
 */
import type { Gather } from "./gather.ts";
import { offsetIn, POW2 } from "./page-sizes.ts";
import type { Tree } from "./tree.ts";

const FRAME_WORDS = 1024;
/** From this many words on, filling by a call is cheaper than a loop. */
const FILL_WORDS = 64;

/** Pages unmapped. */
export function unmap(tree: Tree, iova: number, pages: number, gather: Gather): number {
  const waiting = gather.tables.length;
  let done = -1;
  if (tree.clearsQuickly && pages >= 1 && pages < 512 && iova >= 0 && iova < tree.walkLimit)
    done = clearInTable(tree, iova, pages, gather);
  if (done < 0) {
    if (pages < 1 || iova + pages > 2 ** 52 || !tree.contains(iova, pages)) return 0;
    if (tree.legacy) return unmapBySize(tree, iova, pages, gather);
    if (tree.grows && iova + pages > POW2[9 * (tree.topLevel + 1)]!) return 0;
    done = descend(tree, tree.root * FRAME_WORDS, tree.topLevel, iova, iova + pages, gather) - iova;
    if (gather.tables.length > waiting) tree.epoch++;
  }
  if (tree.keepGaps && gather.isDisjoint(iova, done)) syncEarlier(tree, gather, waiting);
  gather.add(iova, done);
  return done;
}

/** Syncs what the gather held before this call: its interval, and the first `waiting` tables. */
function syncEarlier(tree: Tree, gather: Gather, waiting: number): void {
  const { frames, length } = gather.tables;
  const { leafLevels, tableLevels } = gather;
  gather.tables.length = waiting;
  tree.sync(gather);
  for (let i = waiting; i < length; i++) gather.tables.push(frames[i]!);
  gather.leafLevels = leafLevels;
  gather.tableLevels = tableLevels;
}

/** Fewer than 512 pages: those unmapped if all lie in one leaf table and are single pages up to a hole; else -1, nothing done. */
function clearInTable(tree: Tree, iova: number, pages: number, gather: Gather): number {
  const index = iova & 511;
  if (index + pages > 512) return -1;
  const offset = tree.leafTable(iova);
  if (offset < 0) return -1;
  const { words } = tree.arena;
  const at = offset + index * 2;
  const count = leafRun(tree, at, 0, pages);
  if (count === 0 || (count < pages && tree.isPresent(words[at + count * 2]!))) return -1;
  clearRun(words, at, count);
  tree.counters.leavesCleared += count;
  gather.leafLevels |= 1;
  return count;
}

/** How many of the `count` entries from word `at` on are leaves of one item, before another kind of entry or a hole. */
function leafRun(tree: Tree, at: number, level: number, count: number): number {
  const { words } = tree.arena;
  const { presentMask, contiguousLow, contiguousHigh } = tree;
  if (level > 0) {
    const { tableMask } = tree;
    const match = tree.tableMatch[level]!;
    for (let i = 0; i < count; i++) {
      const low = words[at + i * 2]!;
      if ((low & presentMask) === 0 || (low & tableMask) === match || (low & contiguousLow) !== 0) return i;
    }
    return count;
  }
  if (contiguousHigh === 0) {
    let i = 0;
    for (let entry = at | 0; i + 8 <= count; i = (i + 8) | 0, entry = (entry + 16) | 0) {
      const a = words[entry]!;
      const b = words[entry + 2]!;
      const c = words[entry + 4]!;
      const d = words[entry + 6]!;
      const e = words[entry + 8]!;
      const f = words[entry + 10]!;
      const g = words[entry + 12]!;
      const h = words[entry + 14]!;
      if ((a & b & c & d & e & f & g & h & presentMask) === 0) break;
      if (contiguousLow !== 0 && ((a | b | c | d | e | f | g | h) & contiguousLow) !== 0) break;
    }
    for (; i < count; i++) {
      const low = words[at + i * 2]!;
      if ((low & presentMask) === 0 || (low & contiguousLow) !== 0) return i;
    }
    return count;
  }
  for (let i = 0; i < count; i++)
    if ((words[at + i * 2]! & presentMask) === 0 || (words[at + i * 2 + 1]! & contiguousHigh) !== 0) return i;
  return count;
}

function clearRun(words: Int32Array, at: number, entries: number): void {
  const end = at + entries * 2;
  if (entries * 2 >= FILL_WORDS) words.fill(0, at, end);
  else for (let i = at; i < end; i++) words[i] = 0;
}

/** Unmaps [position, end) of the table at word `offset`; where it got to: before the end, and inside the table, if it had to stop. */
function descend(tree: Tree, offset: number, level: number, position: number, end: number, gather: Gather): number {
  const { words } = tree.arena;
  const itemLg = tree.levelLg[level]!;
  const item = POW2[itemLg]!;
  const entries = tree.entriesAt(level);
  let page = position;
  let index = tree.indexAt(page, level);
  let cleared = 0;
  while (page < end && index < entries) {
    const aligned = itemLg === 0 || offsetIn(page, itemLg) === 0;
    const at = offset + index * 2;
    if (aligned) {
      const run = leafRun(tree, at, level, Math.min(entries - index, Math.ceil((end - page) * tree.inverse[level]!)));
      if (run > 0) {
        clearRun(words, at, run);
        tree.counters.leavesCleared += run;
        gather.leafLevels |= 1 << level;
        cleared += run;
        page += run * item;
        index += run;
        continue;
      }
    }
    const low = words[at]!;
    if (!tree.isPresent(low)) break;
    if (tree.isTable(low, level)) {
      const reached = descend(tree, tree.frameOf(low) * FRAME_WORDS, level - 1, page, end, gather);
      const next = page - offsetIn(page, itemLg) + item;
      if (reached < end && reached < next) {
        page = reached;
        break;
      }
      if (aligned && end >= next) {
        tree.clear(at);
        gather.tables.push(tree.frameOf(low));
        gather.tableLevels |= 1 << level;
        tree.counters.tableEntriesWritten++;
        cleared++;
      }
      page = reached;
      index++;
      continue;
    }
    const lg = tree.leafLg(low, words[at + 1]!, level);
    if (offsetIn(page, lg) !== 0) break;
    const items = POW2[lg - itemLg]!;
    clearRun(words, at, items);
    tree.counters.leavesCleared += items;
    gather.leafLevels |= 1 << level;
    cleared += items;
    page += POW2[lg]!;
    index += items;
  }
  if (cleared > 0) tree.events.writeBack?.(cleared);
  return page;
}

/** Legacy rules: rounds of one size, each as far as one table goes. */
function unmapBySize(tree: Tree, iova: number, pages: number, gather: Gather): number {
  if (offsetIn(iova, tree.granuleLg) !== 0 || offsetIn(pages, tree.granuleLg) !== 0) return 0;
  let done = 0;
  while (done < pages) {
    const at = iova + done;
    const lg = tree.sizes.best(at, at, pages - done);
    const count = tree.sizes.count(lg, at, at, pages - done);
    const unmapped = unmapRound(tree, at, lg, count);
    if (unmapped === 0) break;
    const size = POW2[lg]!;
    if ((gather.pageSize !== 0 && gather.pageSize !== size) || gather.isDisjoint(at, size)) tree.sync(gather);
    gather.pageSize = size;
    gather.add(at, unmapped);
    done += unmapped;
  }
  return done;
}

function unmapRound(tree: Tree, iova: number, lg: number, count: number): number {
  const { words } = tree.arena;
  const level = Math.floor((lg - tree.granuleLg) / tree.indexBits);
  let offset = tree.root * FRAME_WORDS;
  for (let at = tree.topLevel; at > level; at--) {
    const low = words[offset + tree.indexAt(iova, at) * 2]!;
    if (!tree.isPresent(low) || !tree.isTable(low, at)) return 0;
    offset = tree.frameOf(low) * FRAME_WORDS;
  }
  const index = tree.indexAt(iova, level);
  const first = offset + index * 2;
  const size = POW2[lg]!;
  const limit = Math.min(count, tree.entriesAt(level) - index);
  let done = 0;
  for (; done < limit; done++) {
    const low = words[first + done * 2]!;
    if (!tree.isPresent(low)) break;
    if (!tree.isTable(low, level)) {
      tree.counters.leavesCleared++;
      continue;
    }
    tree.clear(first + done * 2);
    tree.counters.tableEntriesWritten++;
    tree.events.writeBack?.(1);
    tree.events.flushWalk?.(iova + done * size, size);
    tree.freeSubtree(tree.frameOf(low), level - 1);
  }
  for (let i = 0; i < done; i++) tree.clear(first + i * 2);
  if (done > 0) tree.events.writeBack?.(done);
  return done * size;
}
