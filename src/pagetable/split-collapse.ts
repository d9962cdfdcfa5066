/**
 * Split and collapse: the same translation by smaller leaves, or by one larger leaf.
 *
 * Idea: the new leaves are written into a table that no entry points to yet, which then replaces the old entry by one
 * 64-bit store per item. Attributes and what the machine noted (accessed, dirty) go along; a leaf made of several is dirty
 * if one of them was.
 * Promises: what translates keeps its translation at every moment; an error changes nothing; the gather gets the leaf's
 * range, since the IOTLB may still hold the other size.
 * Not for: a machine that marks the very entry dirty meanwhile (read the dirty state again after the invalidation), nor
 * live use on an Arm unit that cannot take a changed block size without a break (BBM below level 2).
 * Specified by: this project; Linux 7.2 does not offer it for these formats.
 */
import { ERRNO } from "../base/index.ts";
import { FrameList, type Gather } from "./gather.ts";
import { detach } from "./map.ts";
import { offsetIn, POW2 } from "./page-sizes.ts";
import type { Tree } from "./tree.ts";

const FRAME_WORDS = 1024;

/** Attributes of a leaf to be written, its address and size left out. */
interface Attributes {
  readonly low: number;
  readonly high: number;
}

/** The leaf that covers `page` becomes leaves of at most `leafPages`. 0, or a negative errno. */
export function split(tree: Tree, page: number, leafPages: number, gather: Gather): number {
  if (!tree.reaches(page)) return -ERRNO.ERANGE;
  let target = -1;
  for (const lg of tree.sizes.sizes) if (POW2[lg]! <= leafPages) target = lg;
  if (target < 0) return -ERRNO.EINVAL;
  const { words } = tree.arena;
  let offset = tree.root * FRAME_WORDS;
  let level = tree.topLevel;
  let at = offset + tree.indexAt(page, level) * 2;
  for (; tree.isPresent(words[at]!) && tree.isTable(words[at]!, level); at = offset + tree.indexAt(page, level) * 2) {
    offset = tree.tableAt(words[at]!);
    level--;
  }
  if (!tree.isPresent(words[at]!)) return -ERRNO.ENOENT;
  const lg = tree.leafLg(words[at]!, words[at + 1]!, level);
  if (lg <= target) return 0;
  const items = POW2[lg - tree.levelLg[level]!]!;
  const start = page - offsetIn(page, lg);
  const first = offset + tree.indexAt(start, level) * 2;
  const phys = tree.physIn(words[first]!, words[first + 1]!, level, start);
  const attributes = attributesOf(tree, first, items);
  const item = POW2[tree.levelLg[level]!]!;
  if (levelOf(tree, target) === level) {
    for (let i = 0; i < items; i++) showLeaf(tree, first + i * 2, phys + i * item, target, attributes);
    tree.counters.leavesWritten += items;
  } else {
    const built = new FrameList();
    const tables: number[] = [];
    for (let i = 0; i < items; i++) {
      const frame = build(tree, level - 1, phys + i * item, target, attributes, built);
      if (frame < 0) {
        for (let n = 0; n < built.length; n++) tree.arena.release(built.frames[n]!, tree.tableOrder);
        return frame;
      }
      tables.push(frame);
    }
    tree.counters.tablePagesAllocated += built.length << tree.tableOrder;
    for (const [i, frame] of tables.entries()) showPointer(tree, first + i * 2, frame, level);
  }
  // The leaf that is there no more: what is written and what is cleared must meet at the end.
  tree.counters.leavesCleared += items;
  tree.counters.leavesReplaced += items;
  tree.events.writeBack?.(items);
  gatherLeaf(tree, gather, start, POW2[lg]!, level);
  return 0;
}

/** All leaves in [page, page + leafPages) become one. 0, or a negative errno. */
export function collapse(tree: Tree, page: number, leafPages: number, gather: Gather): number {
  const lg = tree.sizes.sizes.find((size) => POW2[size] === leafPages) ?? -1;
  if (lg < 0 || offsetIn(page, lg) !== 0) return -ERRNO.EINVAL;
  if (!(page >= 0) || !tree.contains(page, leafPages)) return -ERRNO.ERANGE;
  if (!tree.reaches(page)) return -ERRNO.ENOENT;
  const level = levelOf(tree, lg);
  const { words } = tree.arena;
  let offset = tree.root * FRAME_WORDS;
  for (let at = tree.topLevel; at > level; at--) {
    const low = words[offset + tree.indexAt(page, at) * 2]!;
    if (!tree.isPresent(low)) return -ERRNO.ENOENT;
    if (!tree.isTable(low, at)) return 0;
    offset = tree.tableAt(low);
  }
  const first = offset + tree.indexAt(page, level) * 2;
  const items = POW2[lg - tree.levelLg[level]!]!;
  const found = survey(tree, first, level, items, lg);
  if (typeof found === "number") return found > 0 ? 0 : found;
  const tables: number[] = [];
  for (let i = 0; i < items; i++) {
    const low = words[first + i * 2]!;
    if (tree.isTable(low, level)) tables.push(tree.frameOf(low));
  }
  for (let i = 0; i < items; i++) showLeaf(tree, first + i * 2, found.phys, lg, found);
  tree.counters.leavesWritten += items;
  tree.counters.leavesCleared += found.entries;
  tree.counters.leavesReplaced += found.entries;
  tree.events.writeBack?.(items);
  for (const frame of tables) {
    if (tree.legacy) {
      tree.events.flushWalk?.(page, leafPages);
      tree.freeSubtree(frame, level - 1);
    } else detach(tree, frame, level - 1, gather);
  }
  if (tables.length > 0) tree.epoch++;
  gatherLeaf(tree, gather, page, leafPages, level);
  return 0;
}

const levelOf = (tree: Tree, lg: number): number => Math.floor((lg - tree.granuleLg) / tree.indexBits);

/** Builds the tables from `level` down to the leaves of size `target`; the first's frame, or -ENOMEM. */
function build(
  tree: Tree,
  level: number,
  phys: number,
  target: number,
  attributes: Attributes,
  built: FrameList,
): number {
  const frame = tree.arena.allocate(tree.tableOrder);
  if (frame < 0) return -ERRNO.ENOMEM;
  built.push(frame);
  const item = POW2[tree.levelLg[level]!]!;
  const entries = tree.entriesAt(level);
  const atLeaves = levelOf(tree, target) === level;
  for (let i = 0; i < entries; i++) {
    const at = frame * FRAME_WORDS + i * 2;
    if (atLeaves) showLeaf(tree, at, phys + i * item, target, attributes);
    else {
      const below = build(tree, level - 1, phys + i * item, target, attributes, built);
      if (below < 0) return below;
      showPointer(tree, at, below, level);
    }
  }
  if (atLeaves) tree.counters.leavesWritten += entries;
  tree.events.writeBack?.(entries);
  return frame;
}

/** Writes the item of `phys` in a leaf of size `lg`. */
function showLeaf(tree: Tree, at: number, phys: number, lg: number, attributes: Attributes): void {
  const page = phys - offsetIn(phys, lg);
  const low = tree.lowOf(page) | attributes.low | tree.sizeLow[lg]!;
  tree.arena.replace(at, low, tree.highOf(page) | attributes.high | tree.sizeHigh[lg]!);
}

function showPointer(tree: Tree, at: number, frame: number, level: number): void {
  const page = tree.arena.basePage + frame;
  tree.arena.replace(at, tree.lowOf(page) | tree.tableLow[level]!, tree.highOf(page) | tree.tableHigh[level]!);
  tree.counters.tableEntriesWritten++;
}

/** Attributes of the leaf of `items` items at word `first`, with what the machine noted in any of them. */
function attributesOf(tree: Tree, first: number, items: number): Attributes {
  const { words } = tree.arena;
  let low = words[first]!;
  for (let i = 1; i < items; i++) low = joinNoted(tree, low, words[first + i * 2]!);
  return { low: low & tree.keepLow, high: words[first + 1]! & tree.keepHigh };
}

/** `low` with what the machine noted in `other`: bits that it sets are joined by "or", one that it clears by "and". */
function joinNoted(tree: Tree, low: number, other: number): number {
  const { machineLow, dirty } = tree.layout;
  const noted = dirty?.match === 0 ? low & other : low | other;
  return (low & ~machineLow) | (noted & machineLow);
}

/**
 * Looks at everything under `items` entries from word `first` on. If it can be one leaf of size `lg`: the leaf, and how many entries it is now. Else
 * -ENOENT (a hole) or -ENXIO (addresses not consecutive or not aligned, attributes differ); 1 when it is one already.
 */
function survey(
  tree: Tree,
  first: number,
  level: number,
  items: number,
  lg: number,
): (Attributes & { phys: number; entries: number }) | number {
  const { words } = tree.arena;
  const { keepLow, keepHigh } = tree;
  const { machineLow } = tree.layout;
  if (
    tree.isPresent(words[first]!) &&
    !tree.isTable(words[first]!, level) &&
    tree.leafLg(words[first]!, words[first + 1]!, level) >= lg
  )
    return 1;
  let phys = -1;
  let next = 0;
  let low = 0;
  let high = 0;
  let entries = 0;
  const visit = (from: number, at: number, count: number): number => {
    const item = POW2[tree.levelLg[at]!]!;
    for (let i = 0; i < count; i++) {
      const entry = words[from + i * 2]!;
      const upper = words[from + i * 2 + 1]!;
      if (!tree.isPresent(entry)) return -ERRNO.ENOENT;
      if (tree.isTable(entry, at)) {
        const error = visit(tree.tableAt(entry), at - 1, tree.entriesAt(at - 1));
        if (error !== 0) return error;
        continue;
      }
      const size = tree.leafLg(entry, upper, at);
      const page = tree.physIn(entry, upper, at, (i * item) % POW2[size]!);
      if (phys < 0) {
        phys = page;
        next = page;
        low = entry & keepLow;
        high = upper & keepHigh;
      }
      const alike = ((entry ^ low) & keepLow & ~machineLow) === 0 && (upper & keepHigh) === high;
      if (page !== next || !alike) return -ERRNO.ENXIO;
      low = joinNoted(tree, low, entry & keepLow);
      entries++;
      next += item;
    }
    return 0;
  };
  const error = visit(first, level, items);
  if (error !== 0) return error;
  return offsetIn(phys, lg) === 0 ? { low, high, phys, entries } : -ERRNO.ENXIO;
}

function gatherLeaf(tree: Tree, gather: Gather, start: number, pages: number, level: number): void {
  if (!tree.legacy) {
    tree.addToGather(gather, start, pages);
    gather.leafLevels |= 1 << level;
    return;
  }
  if ((gather.pageSize !== 0 && gather.pageSize !== pages) || gather.isDisjoint(start, pages)) tree.sync(gather);
  gather.pageSize = pages;
  gather.add(start, pages);
}
