/**
 * Areas that move or change their size: entries go to another place, pages stay what they are.
 *
 * Idea: an area is copied to where it shall be, its entries are moved over, tables as a whole where both ends are aligned alike, and
 * what is left is unmapped. Several areas may move in one call, each by itself, gaps between them kept.
 * Specified by: behaviour of Linux 7.2 (mremap).
 */
import type { Errno } from "../../../base/index.ts";
import type { Steps } from "../../../platform/index.ts";
import type { AddressSpace } from "./address-space.ts";
import { unlinkAnonVmas } from "./anon-links.ts";
import { ANNOUNCED } from "./anonymous.ts";
import { copyArea, mergeNew } from "./areas.ts";
import { badSplit, refused } from "./errors.ts";
import { splitHugeEntry } from "./huge.ts";
import { checkPages, unmapLocked } from "./map.ts";
import { HUGE_PAGES, HugeEntry, LeafTable, MIDDLE_PAGES } from "./page-table.ts";
import { AREA, type Area, type Space } from "./structures.ts";

/** Pages, not bytes. */
interface RemapRequest {
  readonly page: number;
  readonly pages: number;
  readonly newPages: number;
  /** Where it shall be; what is there goes. In its place, unless said. */
  readonly to?: number;
  /** The old place stays mapped, and empty. Only with `to`, and without a change of size. */
  readonly keepOld?: boolean;
}

const no = (errno: Errno, why: string): Error => refused("mremap", errno, why);

/**
 * @throws DmaError ERR_DMA_USER_CALL (EINVAL, EFAULT, ENOMEM), ERR_DMA_USER_RANGE (EINVAL); of several areas those below may have moved
 */
export function* remapSteps(space: AddressSpace, request: RemapRequest): Steps<void> {
  const { page, pages, newPages, to, keepOld } = request;
  checkPages(page, Math.max(1, pages));
  if (to !== undefined) {
    checkPages(to, newPages);
    if (keepOld && pages !== newPages) throw no("EINVAL", "a mapping whose old place stays cannot change its size");
    if (page + pages > to && to + newPages > page) throw no("EINVAL", "the old and the new place overlap");
  }
  if (newPages < 1) throw no("EINVAL", "no page would be left");
  yield* space.beginWrite();
  try {
    if (to !== undefined && pages === newPages) yield* moveAll(space, page, pages, to, keepOld ?? false);
    else yield* remapOne(space, { ...request, keepOld: keepOld ?? false });
  } finally {
    space.endWrite();
  }
}

function* moveAll(space: AddressSpace, start: number, pages: number, to: number, keepOld: boolean): Steps<void> {
  const end = start + pages;
  let target = to;
  let lastEnd: number | undefined;
  for (let at = start; at < end; ) {
    const area = space.areas.from(at);
    if (!area || area.start >= end) break;
    if (lastEnd === undefined && start < area.start) throw no("EFAULT", "nothing is mapped at the start");
    const first = Math.max(area.start, start);
    const count = Math.min(end, area.end) - first;
    const place = target + (lastEnd === undefined ? 0 : area.start - lastEnd);
    lastEnd = area.end;
    const shape = yield* remapOne(space, { page: first, pages: count, newPages: count, to: place, keepOld });
    target = place + shape.newPages;
    at = first + shape.pages;
  }
  if (lastEnd === undefined) throw no("EFAULT", "nothing is mapped there");
}

interface OneArea extends RemapRequest {
  readonly keepOld: boolean;
}

/** One area, or a part of one. What was asked, in whole huge pages where it had to be. */
function* remapOne(space: AddressSpace, asked: OneArea): Steps<OneArea> {
  const area = space.areas.at(asked.page);
  if (!area) throw no("EFAULT", "nothing is mapped there");
  const request = area.has(AREA.hugetlb) ? alignHuge(asked) : asked;
  const { page, pages, newPages, to } = request;
  const isMoving = to !== undefined;
  const isShrinking = newPages < pages;
  if (isMoving || newPages > pages) {
    if (pages === 0 && area.isPrivate) throw no("EINVAL", "private memory cannot be mapped twice");
    if ((isShrinking ? newPages : pages) > area.end - page) throw no("EFAULT", "it reaches past the end of the area");
    if (newPages > pages && area.has(AREA.io)) throw no("EFAULT", "registers do not grow");
    if (request.keepOld && area.has(AREA.io | AREA.hugetlb))
      throw no("EINVAL", "only ordinary memory can leave its place");
  }
  if (isMoving) yield* moveTo(space, request, to);
  else if (isShrinking) yield* unmapLocked(space, page + newPages, page + pages);
  else if (newPages > pages) growInPlace(space, area, request);
  return request;
}

function alignHuge(request: OneArea): OneArea {
  const up = (pages: number): number => Math.ceil(pages / HUGE_PAGES) * HUGE_PAGES;
  const [pages, newPages] = [up(request.pages), up(request.newPages)];
  if (request.page % HUGE_PAGES !== 0 || (request.to ?? 0) % HUGE_PAGES !== 0)
    throw no("EINVAL", "hugetlb pages lie at multiples of 2 MiB");
  if (newPages > pages) throw no("EINVAL", "hugetlb areas do not grow");
  return { ...request, pages, newPages };
}

function growInPlace(space: AddressSpace, area: Area, { page, pages, newPages }: OneArea): void {
  const end = page + newPages;
  const isFree = area.end === page + pages && space.areas.within(area.end, end).length === 0;
  const { flags, object, anonVma } = area;
  const grown = { start: area.end, end, flags, object, offset: area.offsetOf(area.end), anonVma };
  if (!isFree || !mergeNew(space, grown)) throw no("ENOMEM", "there is no room behind it: say where it may go");
}

function* moveTo(space: AddressSpace, request: OneArea, to: number): Steps<void> {
  const { page, newPages, keepOld } = request;
  yield* unmapLocked(space, to, to + newPages);
  if (!space.areas.at(page)) throw no("EFAULT", "the new place was a part of the old one");
  if (newPages < request.pages) yield* unmapLocked(space, page + newPages, page + request.pages);
  const pages = Math.min(request.pages, newPages);
  const area = space.areas.at(page);
  if (!area) throw no("EFAULT", "the new place was a part of the old one");
  if (to % HUGE_PAGES !== 0 && area.has(AREA.hugetlb)) throw no("EINVAL", "hugetlb pages lie at multiples of 2 MiB");
  const end = page + pages;
  if (area.has(AREA.hugetlb)) for (const border of [page, end]) if (border % HUGE_PAGES !== 0) throw badSplit(border);
  const copy = copyArea(space, area, page, to, newPages);
  const old = space.areas.at(page)!; // it may be one with the copy now
  yield* moveEntries(space, old, copy, page, end, to);
  if (!keepOld) yield* unmapLocked(space, page, end);
  else if (copy !== old && page === old.start && end === old.end) unlinkAnonVmas(old);
}

function* moveEntries(space: Space, from: Area, into: Area, start: number, end: number, to: number): Steps<void> {
  const { table } = space;
  const isHuge = from.has(AREA.hugetlb);
  const shift = to - start;
  const first = isHuge ? start : alignedStart(space, from, into, start, end, to);
  space.notifiers.begin(isHuge ? "clear" : "unmap", first, end);
  yield ANNOUNCED;
  for (let page = first; page < end; ) {
    if (!table.hasMiddle(page)) {
      page = nextBorder(page, end, shift, MIDDLE_PAGES);
      continue;
    }
    table.makeMiddle(page + shift);
    const next = nextBorder(page, end, shift, HUGE_PAGES);
    moveChunk(space, page, next, shift);
    page = next;
  }
  space.notifiers.end();
}

/** Where the piece ends that lies under one table of `size` pages at the old place and at the new one. */
function nextBorder(page: number, end: number, shift: number, size: number): number {
  const border = (at: number): number => (Math.floor(at / size) + 1) * size;
  return Math.min(end, border(page), border(page + shift) - shift);
}

function moveChunk(space: Space, page: number, next: number, shift: number): void {
  const { table } = space;
  const isWhole = next - page === HUGE_PAGES;
  let slot = table.slot(page);
  if (slot instanceof HugeEntry) {
    if (isWhole && movesAsWhole(table.slot(page + shift))) {
      table.setSlot(page, undefined);
      table.setSlot(page + shift, slot);
      return;
    }
    splitHugeEntry(space, page);
    slot = table.slot(page);
  }
  if (!(slot instanceof LeafTable)) return;
  if (isWhole && table.slot(page + shift) === undefined) {
    table.setSlot(page, undefined);
    table.setSlot(page + shift, slot);
    return;
  }
  const into = table.makeLeaf(page + shift);
  for (let at = page; at < next; at++) {
    const index = at % HUGE_PAGES;
    const state = slot.states[index]!;
    if (state === 0) continue;
    into.set((at + shift) % HUGE_PAGES, state, slot.frames[index]!);
    slot.set(index, 0, 0);
  }
}

const movesAsWhole = (there: unknown): boolean => there === undefined;

/** Whole tables move faster: from the start of one, if nothing else lies in it at either place. */
function alignedStart(space: Space, from: Area, into: Area, start: number, end: number, to: number): number {
  const inside = start % HUGE_PAGES;
  const isWorth = inside !== 0 && inside === to % HUGE_PAGES && end - start >= HUGE_PAGES - inside;
  const isAlone = (area: Area, at: number): boolean =>
    area.start === at && space.areas.within(at - inside, area.start).length === 0;
  return isWorth && isAlone(from, start) && isAlone(into, to) ? start - inside : start;
}
