/**
 * Unmap: clears leaves over a range, and detaches the tables that the range covers whole.
 *
 * Idea: one descent; a hole, or a start inside a larger leaf, stops it; a last leaf that reaches past the end goes whole.
 * Promises: never fails, never allocates except room in the gather; detached tables wait in the gather.
 * Specified by: behaviour of Linux 7.2 (generic page tables; Arm's driver behind the legacy splitter).
 */
import type { Gather } from "./gather.ts";
import { POW2 } from "./page-sizes.ts";
import type { Tree } from "./tree.ts";

const FRAME_WORDS = 1024;

/** What the descent has done; one per call, kept in the module because a call never nests. */
let position = 0;
let end = 0;

/** Pages unmapped. */
export function unmap(tree: Tree, iova: number, pages: number, gather: Gather): number {
  if (pages < 1 || iova + pages > 2 ** 52 || !tree.contains(iova, pages)) return 0;
  if (tree.layout.rules === "legacy") return unmapBySize(tree, iova, pages, gather);
  if (tree.layout.maxTopLevel > tree.topLevel && iova + pages > POW2[9 * (tree.topLevel + 1)]!) return 0;
  position = iova;
  end = iova + pages;
  const waiting = gather.tables.length;
  descend(tree, tree.root * FRAME_WORDS, tree.topLevel, gather);
  const done = position - iova;
  if (gather.tables.length > waiting) tree.epoch++;
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

/** False when the descent must stop. */
function descend(tree: Tree, offset: number, level: number, gather: Gather): boolean {
  const { words } = tree.arena;
  const itemLg = tree.levelLg[level]!;
  const item = POW2[itemLg]!;
  const entries = tree.entriesAt(level);
  let index = tree.indexAt(position, level);
  let cleared = 0;
  let going = true;
  while (position < end && index < entries) {
    const at = offset + index * 2;
    const low = words[at]!;
    if (!tree.isPresent(low)) {
      going = false;
      break;
    }
    if (tree.isTable(low, level)) {
      const covered = end - position >= item && position % item === 0;
      going = descend(tree, tree.frameOf(low) * FRAME_WORDS, level - 1, gather);
      if (!going) break;
      if (covered) {
        tree.clear(at);
        gather.tables.push(tree.frameOf(low));
        gather.tableLevels |= 1 << level;
        tree.counters.tableEntriesWritten++;
        cleared++;
      }
      index++;
      continue;
    }
    const lg =
      level === 0 && tree.layout.leafSizes.length === 1 ? itemLg : tree.layout.sizeOf(low, words[at + 1]!, level);
    const size = POW2[lg]!;
    if (lg > 0 && position % size !== 0) {
      going = false;
      break;
    }
    const items = POW2[lg - itemLg]!;
    for (let i = 0; i < items; i++) {
      words[at + i * 2] = 0;
      words[at + i * 2 + 1] = 0;
    }
    tree.counters.leavesCleared += items;
    gather.leafLevels |= 1 << level;
    cleared += items;
    position += size;
    index += items;
  }
  if (cleared > 0) tree.events.writeBack?.(cleared);
  return going;
}

/** Legacy rules: rounds of one size, each as far as one table goes. */
function unmapBySize(tree: Tree, iova: number, pages: number, gather: Gather): number {
  const { layout } = tree;
  const granule = POW2[layout.granuleLg]!;
  if (iova % granule !== 0 || pages % granule !== 0) return 0;
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
  const { layout } = tree;
  const level = Math.floor((lg - layout.granuleLg) / layout.indexBits);
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
