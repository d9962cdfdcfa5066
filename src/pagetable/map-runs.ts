/**
 * Map runs: many pieces of physical memory at consecutive addresses, in one call.
 *
 * Idea: runs that can only be single pages are written straight into the leaf table that the cursor remembers; the first
 * that cannot, or whose table is not known yet, goes the long way of one map, which also finds the next table.
 * Promises: the same entries, counts and errors as one map per run.
 */
import { mapRange } from "./map.ts";
import type { LeafCursor, Tree } from "./tree.ts";

/** Maps `count` runs one after the other. 0, or a negative errno; `tree.mappedPages` counts over all of them. */
export function mapRuns(
  tree: Tree,
  iova: number,
  physPages: Float64Array,
  pages: Int32Array,
  count: number,
  prot: number,
  cursor: LeafCursor,
): number {
  let mapped = 0;
  let run = 0;
  while (run < count) {
    const runs = mapRunsInTable(tree, iova + mapped, physPages, pages, run, count, prot, cursor);
    mapped += tree.mappedPages;
    run += runs;
    if (run === count) break;
    const error = mapRange(tree, iova + mapped, physPages[run]!, pages[run]!, prot, cursor);
    mapped += tree.mappedPages;
    if (error !== 0) {
      tree.mappedPages = mapped;
      return error;
    }
    run++;
  }
  tree.mappedPages = mapped;
  return 0;
}

/**
 * How many of the runs from `first` on could be mapped as single pages in the cursor's table: whole runs only, the first
 * that cannot is left as it was. `tree.mappedPages` has their pages.
 */
function mapRunsInTable(
  tree: Tree,
  iova: number,
  physPages: Float64Array,
  pages: Int32Array,
  first: number,
  count: number,
  prot: number,
  cursor: LeafCursor,
): number {
  tree.mappedPages = 0;
  const start = iova - cursor.firstPage;
  const low = tree.pageLow[prot]!;
  const high = tree.pageHigh[prot]!;
  const presentMask = tree.presentMask | 0; // "| 0": as plain integers from here on, not checked at each use
  const plainPages = tree.plainPages | 0;
  const shift = tree.shift | 0;
  const { outputLimit } = tree;
  if (cursor.epoch !== tree.epoch || !(start >= 0 && start < 512) || (low & presentMask) === 0) return 0;
  const { words } = tree.arena;
  const from = cursor.offset + (start | 0) * 2;
  const end = cursor.offset + 1024;
  let at = from;
  let run = first;
  for (; run < count && at < end; run++) {
    const singles = mapSingles(
      tree,
      words,
      at,
      Math.min(count - run, (end - at) >> 1),
      physPages,
      pages,
      run,
      low,
      high,
    );
    run += singles;
    at += singles * 2;
    if (run >= count || at >= end) break;
    const phys = physPages[run]!;
    const length = pages[run]!;
    const stop = at + length * 2;
    if (length < 1 || length > plainPages || stop > end || !(phys >= 0 && phys + length < outputLimit + 1)) break;
    let next = at;
    while (next < stop && (words[next]! & presentMask) === 0) next += 2;
    if (next < stop) break;
    for (let page = phys; at < stop; at += 2, page++) {
      words[at + 1] = tree.highOf(page) | high;
      words[at] = (page << shift) | low;
    }
  }
  const mapped = (at - from) >> 1;
  tree.mappedPages = mapped;
  tree.counters.leavesWritten += mapped;
  return run - first;
}

/**
 * Maps the runs of one page each among the `count` from `first` on, up to one that is not or that cannot be mapped; how many.
 * A function of one loop, with what it needs in local integers: the engine then checks its arrays once, not at each page.
 */
function mapSingles(
  tree: Tree,
  words: Int32Array,
  at: number,
  count: number,
  physPages: Float64Array,
  pages: Int32Array,
  first: number,
  low: number,
  high: number,
): number {
  const presentMask = tree.presentMask | 0;
  const shift = tree.shift | 0;
  const upShift = tree.upShift | 0;
  const highMask = tree.highMask | 0;
  const { highScale, outputLimit } = tree;
  const end = count | 0;
  let run = first | 0;
  let entry = at | 0;
  for (let i = 0; i < end; i++) {
    const phys = physPages[run]!;
    if (pages[run] !== 1 || (words[entry]! & presentMask) !== 0 || !(phys >= 0 && phys < outputLimit)) return i;
    const page = phys | 0;
    words[entry + 1] = (phys < 0x8000_0000 ? (page >>> upShift) & highMask : (phys * highScale) & highMask) | high;
    words[entry] = (page << shift) | low;
    entry = (entry + 2) | 0;
    run = (run + 1) | 0;
  }
  return end;
}
