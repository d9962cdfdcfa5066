/**
 * Advice about memory: drop it, take it, give it back, make it huge, or what a child shall see of it.
 *
 * Promises: a hole in the range is an error (ENOMEM), but what lies behind it is done all the same.
 * Specified by: behaviour of Linux 7.2 (madvise).
 */
import type { Errno } from "../../../base/index.ts";
import { type Steps, WAITING } from "../../../platform/index.ts";
import type { AddressSpace } from "./address-space.ts";
import { ANNOUNCED } from "./anonymous.ts";
import { changeFlags } from "./areas.ts";
import { collapseSteps } from "./collapse.ts";
import { noArea, refused } from "./errors.ts";
import { faultIn } from "./fault.ts";
import { SimulatedFile } from "./file.ts";
import { HugetlbObject } from "./hugetlb-object.ts";
import { checkPages } from "./map.ts";
import { splitFolio } from "./moving.ts";
import { ENTRY, HUGE_PAGES, kindOf, type LeafTable, WRITABLE } from "./page-table.ts";
import { evict } from "./reclaim.ts";
import { AREA, type Area, type Folio, type FrameSource } from "./structures.ts";
import { zapPages } from "./zap.ts";

/** What a program may say of its memory (madvise). */
export type Advice =
  /** Contents may go: now, or when memory is short. */
  | "dontneed"
  | "free"
  /** The same, in the file behind a shared mapping. */
  | "remove"
  /** Contents go to swap now. */
  | "pageout"
  /** Small pages become huge ones. */
  | "collapse"
  /** Bring the pages, as reading or writing them all would. */
  | "populateRead"
  | "populateWrite"
  /** Huge pages here, or none. */
  | "hugepage"
  | "nohugepage"
  /** A child gets this, or not; empty, or as it is. */
  | "dofork"
  | "dontfork"
  | "keeponfork"
  | "wipeonfork";

/**
 * @throws DmaError ERR_DMA_USER_HOLE (ENOMEM); ERR_DMA_USER_CALL (EINVAL, EACCES, EFAULT, ENOMEM) at an area that cannot be advised so,
 *   what is below is done then; ERR_DMA_USER_RANGE (EINVAL)
 */
export function* adviseSteps(space: AddressSpace, page: number, pages: number, advice: Advice): Steps<void> {
  checkPages(page, pages);
  const end = page + pages;
  if (advice === "populateRead" || advice === "populateWrite") {
    yield* populate(space, page, end, advice === "populateWrite");
    return;
  }
  if (advice === "collapse") {
    yield* collapse(space, page, end);
    return;
  }
  const readOnly = advice === "pageout" || advice === "dontneed" || advice === "free" || advice === "remove";
  yield* readOnly ? space.beginRead() : space.beginWrite();
  try {
    let hole: number | undefined;
    for (let at = page; at < end; ) {
      const area = space.areas.from(at);
      if (!area || area.start > at) hole ??= at;
      if (!area || area.start >= end) break;
      at = Math.max(at, area.start);
      const partEnd = Math.min(area.end, end);
      const changed = yield* adviseArea(space, area, at, partEnd, advice);
      at = Math.max(partEnd, changed.end);
    }
    if (hole !== undefined) throw noArea(hole);
  } finally {
    if (readOnly) space.endRead();
    else space.endWrite();
  }
}

const no = (advice: Advice, errno: Errno, why: string): Error => refused(`madvise ${advice}`, errno, why);

function* adviseArea(space: AddressSpace, area: Area, start: number, end: number, advice: Advice): Steps<Area> {
  switch (advice) {
    case "dontneed":
      yield* drop(space, area, start, end);
      return area;
    case "free":
      if (!area.isAnonymous) throw no(advice, "EINVAL", "only anonymous memory can be given up");
      space.notifiers.begin("clear", start, end);
      yield ANNOUNCED;
      splitForFree(space, start, end);
      space.notifiers.end();
      return area;
    case "remove":
      yield* remove(area, start, end);
      return area;
    case "pageout":
      if (area.has(AREA.io | AREA.hugetlb)) throw no(advice, "EINVAL", "such memory does not go to swap");
      yield* pageOut(space, start, end);
      return area;
    default:
      return setFlag(space, area, start, end, advice);
  }
}

/** Pages that this process alone maps leave memory. */
function* pageOut({ table, frames }: AddressSpace, start: number, end: number): Steps<void> {
  for (let page = start; page < end; page++) {
    if (kindOf(table.state(page)) !== ENTRY.present) continue;
    const folio = frames.folio(table.frame(page))!;
    if (!folio.isLarge) {
      if (folio.mapCount === 1) yield* evict(frames, folio);
    } else if (!folio.seemsShared && cut(frames, folio)) page--; // it is in pages now: look again
  }
}

/** Makes huge pages of every 2 MiB that lie whole in the range. */
function* collapse(space: AddressSpace, start: number, end: number): Steps<void> {
  yield* space.beginWrite();
  try {
    let failed: Errno | undefined;
    for (let page = Math.ceil(start / HUGE_PAGES) * HUGE_PAGES; page + HUGE_PAGES <= end; page += HUGE_PAGES) {
      const area = space.areas.at(page);
      if (!area) throw noArea(page);
      failed = (yield* collapseSteps(space, area, page)) ?? failed;
    }
    if (failed !== undefined) throw no("collapse", failed, WHY_NOT_COLLAPSED[failed] ?? failed);
  } finally {
    space.endWrite();
  }
}

const WHY_NOT_COLLAPSED: Readonly<Partial<Record<Errno, string>>> = {
  EINVAL: "not all of it is anonymous memory that may be huge and was touched",
  EAGAIN: "a page is in use: pinned, or on its way",
  ENOMEM: "no memory for a huge page",
};

/** Cuts a huge page that nobody holds. */
function cut(frames: FrameSource, folio: Folio): boolean {
  frames.hold(folio);
  if (splitFolio(frames, folio)) return true;
  frames.letGo(folio);
  return false;
}

function* drop(space: AddressSpace, area: Area, start: number, end: number): Steps<void> {
  if (area.has(AREA.io)) throw no("dontneed", "EINVAL", "registers have no contents to drop");
  const isHuge = area.has(AREA.hugetlb);
  if (isHuge && start % HUGE_PAGES !== 0) throw no("dontneed", "EINVAL", "hugetlb pages are dropped whole");
  const last = isHuge ? end - (end % HUGE_PAGES) : end;
  if (start >= last) return;
  space.notifiers.begin("clear", start, last);
  yield ANNOUNCED;
  zapPages(space, area, start, last, { copiesToo: true, freeTables: true });
  space.notifiers.end();
}

function* remove(area: Area, start: number, end: number): Steps<void> {
  const { object } = area;
  if (!object) throw no("remove", "EINVAL", "no file stands behind this memory");
  if (!area.has(AREA.shared)) throw no("remove", "EACCES", "what is private cannot be taken from the file");
  const [first, last] = [area.offsetOf(start), area.offsetOf(end)];
  if (object instanceof HugetlbObject) yield* object.punchSteps(first, last);
  else if (object instanceof SimulatedFile) yield* object.punchSteps(first * 4096, last * 4096);
}

const FLAGS: Readonly<Partial<Record<Advice, { readonly set?: number; readonly clear?: number }>>> = {
  hugepage: { set: AREA.huge, clear: AREA.noHuge },
  nohugepage: { set: AREA.noHuge, clear: AREA.huge },
  dofork: { clear: AREA.dontFork },
  dontfork: { set: AREA.dontFork },
  keeponfork: { clear: AREA.wipeOnFork },
  wipeonfork: { set: AREA.wipeOnFork },
};

function setFlag(space: AddressSpace, area: Area, start: number, end: number, advice: Advice): Area {
  if (advice === "wipeonfork" && (area.object || area.has(AREA.shared | AREA.io)))
    throw no(advice, "EINVAL", "only private anonymous memory can be given empty");
  if (advice === "dofork" && area.has(AREA.io | AREA.hugetlb))
    throw no(advice, "EINVAL", "of such memory a child gets its share anyway");
  const { set = 0, clear = 0 } = FLAGS[advice]!;
  const flags = (area.flags & ~clear) | set;
  return flags === area.flags ? area : changeFlags(space, area, start, end, flags);
}

/** Contents are given up when memory is short, so nothing goes now; but a huge page of which only a part may go is cut. */
function splitForFree(space: AddressSpace, start: number, end: number): void {
  const { table, frames } = space;
  for (let page = start; page < end; ) {
    const chunkEnd = Math.min(end, page - (page % HUGE_PAGES) + HUGE_PAGES);
    const entry = table.huge(page);
    if (entry) {
      const folio = frames.folio(entry.frame)!;
      const isPart = chunkEnd - page < HUGE_PAGES;
      if (isPart && kindOf(entry.state) === ENTRY.present && folio.kind !== "zero" && !folio.seemsShared)
        cut(frames, folio);
    } else splitPartlyMapped(page, chunkEnd);
    page = chunkEnd;
  }

  function splitPartlyMapped(first: number, last: number): void {
    const leaf = table.leaf(first);
    if (!leaf) return;
    for (let page = first; page < last; ) {
      const index = page % HUGE_PAGES;
      const folio = kindOf(leaf.states[index]!) === ENTRY.present ? frames.folio(table.frame(page)) : undefined;
      if (!folio?.isLarge || folio.kind === "zero" || folio.region) {
        page++;
        continue;
      }
      const count = mappedInRow(leaf, index, Math.min(last - page, HUGE_PAGES - index), folio);
      if (count < folio.pages && !folio.seemsShared && cut(frames, folio)) continue;
      page += count < folio.pages ? 1 : count;
    }
  }
}

/** Entries from `index` on that map the following pages of `folio`. */
function mappedInRow(leaf: LeafTable, index: number, most: number, folio: Folio): number {
  const first = leaf.frames[index]!;
  let count = 1;
  while (
    count < most &&
    kindOf(leaf.states[index + count]!) === ENTRY.present &&
    leaf.frames[index + count] === first + count &&
    first + count < folio.frame + folio.pages
  )
    count++;
  return count;
}

function* populate(space: AddressSpace, start: number, end: number, write: boolean): Steps<void> {
  const advice = write ? "populateWrite" : "populateRead";
  yield* space.beginRead();
  try {
    for (let page = start; page < end; ) {
      const area = space.areas.at(page);
      if (!area) throw noArea(page);
      if (area.has(AREA.io) || !area.has(write ? AREA.write : AREA.read))
        throw no(advice, "EINVAL", "the area does not allow it");
      const state = space.table.state(page);
      if (kindOf(state) === ENTRY.present && (!write || (state & WRITABLE) !== 0)) {
        page++;
        continue;
      }
      const outcome = yield* faultIn(space, area, page, write ? "write" : "read");
      if (outcome === "out-of-memory") throw no(advice, "ENOMEM", "no memory");
      if (outcome !== "done") throw no(advice, "EFAULT", "past the end of the file, or the page is broken");
      if (kindOf(space.table.state(page)) === ENTRY.migrating) yield WAITING;
    }
  } finally {
    space.endRead();
  }
}
