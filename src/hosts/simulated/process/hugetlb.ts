/**
 * Huge pages that were set aside: mapped 2 MiB at a time, promised when mapped, never cut.
 *
 * Idea: a mapping is promised its pages at once, so that a touch later does not fail; what a child copies is not promised.
 * Promises: pages promised and not used come back when the mapping goes.
 * Specified by: behaviour of Linux 7.2 (hugetlb_fault, hugetlb_wp).
 */
import type { FaultOutcome, Steps } from "../../../platform/index.ts";
import { prepareAnonVma } from "./anon-links.ts";
import { ANNOUNCED } from "./anonymous.ts";
import { hugeEntry } from "./huge.ts";
import { ENTRY, HUGE_PAGES, type HugeEntry, WRITABLE } from "./page-table.ts";
import { AREA, type Area, type Folio, type Space } from "./structures.ts";

/** What an object of hugetlb answers besides: huge pages promised to its private mapping. */
export interface HugetlbPromise {
  /** A page out of the promise, or a free one; undefined if there is none. */
  takePrivate(): Folio | undefined;
}

export function* hugetlbFault(
  space: Space,
  area: Area,
  page: number,
  write: boolean,
  unshare = false,
): Steps<FaultOutcome> {
  const start = page - (page % HUGE_PAGES);
  space.table.makeMiddle(page);
  const entry = space.table.huge(start);
  if (entry === undefined) return hugetlbTouch(space, area, start, write);
  const folio = space.frames.folio(entry.frame)!;
  if ((entry.state & WRITABLE) !== 0 || !(write || unshare)) return "done";
  if (area.has(AREA.shared)) {
    entry.state |= WRITABLE;
    return "done";
  }
  if (folio.anonVma !== undefined && folio.mapCount === 1) {
    folio.anonVma = area.anonVma;
    folio.setAllExclusive(true);
    if (!unshare) entry.state |= WRITABLE;
    return "done";
  }
  return yield* copyHuge(space, area, start, entry, folio, unshare);
}

function hugetlbTouch(space: Space, area: Area, start: number, write: boolean): FaultOutcome {
  const object = area.object!;
  const offset = area.offsetOf(start);
  if (area.isPrivate) prepareAnonVma(area, space.areas);
  if (offset >= object.endOffset) return "no-page";
  const shared = area.isPrivate ? object.peek(offset) : object.get(offset);
  if (shared) {
    const canWrite = area.has(AREA.shared) && area.has(AREA.write);
    space.table.setSlot(start, hugeEntry(ENTRY.present, canWrite, shared.frame));
    shared.addEntireMap(space.id);
    return "done";
  }
  if (!area.isPrivate) return "no-page";
  const folio = (object as Partial<HugetlbPromise>).takePrivate?.() ?? space.frames.takeHugetlb(false);
  if (!folio) return "no-page";
  ownHuge(space, area, start, folio, write && area.has(AREA.write));
  return "done";
}

function ownHuge(space: Space, area: Area, start: number, folio: Folio, writable: boolean): void {
  folio.anonVma = area.anonVma;
  folio.offset = area.offsetOf(start);
  space.table.setSlot(start, hugeEntry(ENTRY.present, writable, folio.frame));
  folio.addEntireMap(space.id);
  folio.setAllExclusive(true);
}

function* copyHuge(
  space: Space,
  area: Area,
  start: number,
  entry: HugeEntry,
  folio: Folio,
  unshare: boolean,
): Steps<FaultOutcome> {
  const { frames, table } = space;
  prepareAnonVma(area, space.areas);
  const copy = frames.takeHugetlb(false);
  if (!copy) return "no-page";
  frames.hold(folio);
  frames.copy(folio.frame, copy.frame, HUGE_PAGES);
  space.notifiers.begin("clear", start, start + HUGE_PAGES);
  yield ANNOUNCED;
  if (table.huge(start) === entry) {
    folio.removeEntireMap(space.id);
    ownHuge(space, area, start, copy, !unshare && area.has(AREA.write));
  } else frames.release(copy);
  space.notifiers.end();
  frames.letGo(folio);
  return "done";
}
