/**
 * Dirty: which leaves the machine has written to, and forgetting it.
 *
 * Idea: visit the leaves of a range; a leaf of many items is dirty when any of them is.
 * Promises: a leaf is reported to its end, the last item of a contiguous one included. Not for: finer than a leaf.
 * Specified by: behaviour of Linux 7.2 (read and clear dirty), without its short count in contiguous leaves and without
 * its report past the end of an Arm block.
 */
import { ERRNO, type IovaPage } from "../base/index.ts";
import type { Gather } from "./gather.ts";
import { offsetIn } from "./page-sizes.ts";
import type { Tree } from "./tree.ts";

const FRAME_WORDS = 1024;

/** 0, or a negative errno. */
export function readDirty(
  tree: Tree,
  iova: number,
  pages: number,
  clear: boolean,
  gather: Gather,
  report: (iova: IovaPage, pages: number) => void,
): number {
  const { layout } = tree;
  const rule = layout.dirty;
  if (rule === undefined) return -ERRNO.EOPNOTSUPP;
  if (pages < 1 || layout.inputs === "upper") return -ERRNO.EINVAL; // Linux has no reader for the upper half
  if (!tree.contains(iova, pages)) return -ERRNO.ERANGE;
  const { words } = tree.arena;
  const end = iova + pages;
  let page = iova;
  while (page < end) {
    let offset = tree.root * FRAME_WORDS;
    let level = tree.topLevel;
    if (!tree.reaches(page)) return 0;
    let at = offset + tree.indexAt(page, level) * 2;
    while (tree.isPresent(words[at]!) && tree.isTable(words[at]!, level)) {
      offset = tree.frameOf(words[at]!) * FRAME_WORDS;
      level--;
      at = offset + tree.indexAt(page, level) * 2;
    }
    const itemLg = tree.levelLg[level]!;
    const item = 2 ** itemLg;
    if (!tree.isPresent(words[at]!)) {
      if (rule.strict) return -ERRNO.EINVAL;
      page += item - offsetIn(page, itemLg);
      continue;
    }
    const lg = tree.leafLg(words[at]!, words[at + 1]!, level);
    const size = 2 ** lg;
    const items = size / item;
    const first = offset + (tree.indexAt(page, level) & ~(items - 1)) * 2;
    const leafEnd = page - offsetIn(page, lg) + size;
    let dirty = false;
    for (let i = 0; i < items; i++) {
      const isDirty =
        (words[first + i * 2]! & rule.mask) === rule.match &&
        (rule.highMask === undefined || (words[first + i * 2 + 1]! & rule.highMask) !== 0);
      if (isDirty) dirty = true;
    }
    if (dirty) {
      if (clear) for (let i = 0; i < items; i++) words[first + i * 2] = rule.clean(words[first + i * 2]!);
      const length = (items > 1 ? Math.min(leafEnd, Math.ceil(end / item) * item) : leafEnd) - page;
      report(page as IovaPage, length);
      if (clear || rule.strict) gather.add(page, length); // one interval, gaps or not
      if (clear) tree.events.writeBack?.(items);
    }
    page = leafEnd;
  }
  return 0;
}
