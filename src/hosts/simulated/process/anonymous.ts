/**
 * Anonymous memory: what a first touch brings, and what a write to a page costs that others see too.
 *
 * Idea: a read of nothing maps the zero page, a write gives a page. A page that one process has for itself is marked so, and is then
 * written without a copy; a page that lost the mark (by a fork) is copied, unless nobody else is left who maps or holds it.
 * Promises: a copy is announced to watchers before the entry changes, and is dropped if the entry changed meanwhile.
 * Specified by: behaviour of Linux 7.2 (do_anonymous_page, do_wp_page, do_huge_pmd_anonymous_page, do_huge_pmd_wp_page).
 */
import type { FaultOutcome, Steps } from "../../../platform/index.ts";
import { prepareAnonVma } from "./anon-links.ts";
import { hugeEntry, splitHugeEntry } from "./huge.ts";
import { ENTRY, HUGE_ORDER, HUGE_PAGES, type HugeEntry, WRITABLE } from "./page-table.ts";
import { AREA, type Area, type Folio, type Space } from "./structures.ts";

/** The work has stopped with the change announced and not yet made. */
export const ANNOUNCED = "a change is announced";

/** State of an entry for a page that the area's process has for itself. */
export const ownState = (area: Area): number => ENTRY.present | (area.has(AREA.write) ? WRITABLE : 0);

/** Makes `folio` a page of the process's own at `page`: not mapped yet. */
export function adopt(folio: Folio, area: Area, page: number): void {
  folio.kind = "anonymous";
  folio.anonVma = area.anonVma;
  folio.offset = area.offsetOf(page);
}

/** Maps a small folio that is the process's own alone. */
export function mapOwn(space: Space, folio: Folio, page: number, state: number): void {
  space.table.set(page, state, folio.frame);
  folio.addMap(folio.frame, space.id);
  folio.setExclusive(folio.frame, true);
}

/** May a huge page come into the aligned 2 MiB around `page`? */
export function hugeFits(space: Space, area: Area, page: number): boolean {
  const { hugePages } = space.frames.settings;
  if (!area.isAnonymous || hugePages === "never" || area.has(AREA.noHuge)) return false;
  if (hugePages === "madvise" && !area.has(AREA.huge)) return false;
  const start = page - (page % HUGE_PAGES);
  return start >= area.start && start + HUGE_PAGES <= area.end;
}

/** First touch of 2 MiB of which no page is there. False: small pages, then. */
export function hugeTouch(space: Space, area: Area, page: number, write: boolean): boolean {
  const start = page - (page % HUGE_PAGES);
  prepareAnonVma(area, space.areas);
  if (!write) {
    const zero = space.frames.hugeZero();
    if (!zero) return false;
    space.table.setSlot(start, hugeEntry(ENTRY.present, false, zero.frame));
    return true;
  }
  const folio = space.frames.allocate(HUGE_ORDER);
  if (!folio) return false;
  mapHugeOwn(space, area, start, folio);
  return true;
}

/** Maps a huge folio that is the process's own alone, in the place of whatever entry is there. */
export function mapHugeOwn(space: Space, area: Area, start: number, folio: Folio): void {
  adopt(folio, area, start);
  space.table.setSlot(start, hugeEntry(ENTRY.present, area.has(AREA.write), folio.frame));
  folio.addEntireMap(space.id);
  folio.setAllExclusive(true);
}

/** First touch of a page. */
export function touch(space: Space, area: Area, page: number, write: boolean): FaultOutcome {
  if (area.has(AREA.shared)) return "no-page"; // memory that is shared has an object
  if (!write) {
    const zero = space.frames.zero();
    if (!zero) return "out-of-memory";
    space.table.makeLeaf(page).set(page % HUGE_PAGES, ENTRY.present, zero.frame);
    return "done";
  }
  prepareAnonVma(area, space.areas);
  const folio = space.frames.allocate(0);
  if (!folio) return "out-of-memory";
  adopt(folio, area, page);
  space.table.makeLeaf(page);
  mapOwn(space, folio, page, ownState(area));
  return "done";
}

/** Nobody but this one entry has the page, though it is not marked as the process's own: after a fork whose other process has ended. */
function isLastUser(folio: Folio, area: Area): boolean {
  if (folio.isLarge) return folio.mapCount > 1 && !folio.seemsShared && folio.pins === 0 && folio.held === 0;
  if (folio.mapCount + folio.pins + folio.held > 1) return false;
  folio.anonVma = area.anonVma;
  return true;
}

/**
 * A write to a page that is mapped for reading; with `unshare` only the copy is wanted, not the permission (a pin for reading that
 * must not see what others write).
 */
export function* writeToRead(space: Space, area: Area, page: number, unshare: boolean): Steps<FaultOutcome> {
  const { frames, table } = space;
  const state = table.state(page);
  const frame = table.frame(page);
  const folio = frames.folio(frame)!;
  if (area.has(AREA.shared)) {
    table.set(page, state | WRITABLE, frame);
    return "done";
  }
  if (folio.kind === "anonymous" && (folio.isExclusive(frame) || isLastUser(folio, area))) {
    folio.setExclusive(frame, true);
    if (!unshare) table.set(page, state | WRITABLE, frame);
    return "done";
  }
  prepareAnonVma(area, space.areas);
  frames.hold(folio); // what is to be copied must not leave to make room for the copy
  const copy = frames.allocate(0);
  if (!copy) {
    frames.letGo(folio);
    return "out-of-memory";
  }
  if (folio.kind !== "zero") frames.copy(frame, copy.frame);
  space.notifiers.begin("clear", page, page + 1);
  yield ANNOUNCED;
  if (table.state(page) === state && table.frame(page) === frame) {
    if (folio.kind !== "zero") folio.removeMap(frame, space.id);
    adopt(copy, area, page);
    mapOwn(space, copy, page, unshare ? ENTRY.present : ownState(area));
  } else frames.release(copy);
  space.notifiers.end();
  frames.letGo(folio);
  return "done";
}

/** The same for 2 MiB by one entry. False: the entry was cut, and the page is to be looked at again. */
export function* writeToReadHuge(
  space: Space,
  area: Area,
  page: number,
  entry: HugeEntry,
  unshare: boolean,
): Steps<boolean> {
  const { frames, table } = space;
  const start = page - (page % HUGE_PAGES);
  const folio = frames.folio(entry.frame)!;
  if (folio.kind === "zero") {
    const own = frames.allocate(HUGE_ORDER);
    if (own) {
      space.notifiers.begin("clear", start, start + HUGE_PAGES);
      yield ANNOUNCED;
      if (table.huge(start) === entry) mapHugeOwn(space, area, start, own);
      else frames.release(own);
      space.notifiers.end();
      return true;
    }
  } else {
    const isOwn = folio.isExclusive(folio.frame);
    const isAlone = folio.mapCount + folio.pins + folio.held === 1;
    if (isOwn || isAlone) {
      if (!isOwn) folio.anonVma = area.anonVma;
      folio.setAllExclusive(true);
      if (!unshare) entry.state |= WRITABLE;
      return true;
    }
  }
  splitHugeEntry(space, start);
  return false;
}
