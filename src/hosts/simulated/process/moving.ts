/**
 * Folios on the move: all entries that map one are found and replaced by entries that say "it is moving", and set again later.
 *
 * Idea: a folio that nothing maps stands still, so it can be copied or cut into pages; whoever touches it meanwhile meets the
 * placeholder and waits. Entries are found from the folio, through the areas that may map it, in each of which watchers hear first.
 * Promises: a pinned page that one process has for itself is not taken away; a refusal leaves everything mapped.
 * Specified by: behaviour of Linux 7.2 (try_to_migrate, remove_migration_ptes, split_huge_page).
 */
import { assert, type PhysPage } from "../../../base/index.ts";
import { cutHugeEntry, hugeEntry, movingState } from "./huge.ts";
import { ENTRY, HUGE_PAGES, KEPT, kindOf, WRITABLE } from "./page-table.ts";
import { AREA, type Area, type Folio, type FrameSource } from "./structures.ts";
import type { SwapSpace } from "./swap.ts";

/** What comes in the place of an entry that maps a folio. */
interface Replacement {
  /** Huge entries become small ones at the same time. */
  readonly cut?: boolean;
  /** The state and the number to put; the entry's own frame and "it is moving" unless said. */
  readonly put?: (state: number, isOwn: boolean) => readonly [state: number, number: number];
}

/** Areas that may map `folio`, in the order in which Linux visits them, with the pages that would show it. */
function* mappingsOf(folio: Folio): Generator<{ area: Area; start: number; end: number }> {
  const last = folio.offset + folio.pages;
  const areas = folio.anonVma ? folio.anonVma.links : folio.object?.areas;
  for (const each of areas ?? []) {
    const area = "area" in each ? each.area : each;
    if (area.offset >= last) return;
    const start = Math.max(area.start, area.start + folio.offset - area.offset);
    const end = Math.min(area.end, area.start + last - area.offset);
    if (start < end) yield { area, start, end };
  }
}

/**
 * Replaces all entries that map `folio`. With `cut`, huge entries become small ones at the same time.
 *
 * @returns nothing maps it any more
 */
export function unmapToMove(folio: Folio, cut: boolean): boolean {
  return unmapAll(folio, { cut });
}

/** Replaces all entries that map the page `folio`, which nobody has pinned, by the number of its swap slot. */
export function unmapToSwap(folio: Folio, slot: number, swap: SwapSpace<Folio>): void {
  const put = (_state: number, isOwn: boolean): [number, number] => {
    swap.share(slot);
    return [ENTRY.swapped | (isOwn ? KEPT : 0), slot];
  };
  const done = unmapAll(folio, { put });
  assert(done, `page ${folio.frame} is still mapped, and is to go to swap`);
}

/** Clears all entries that map the page `folio` of a file, which nobody has pinned: who touches it asks the file again. */
export function unmapForGood(folio: Folio): void {
  const done = unmapAll(folio, { put: () => [ENTRY.none, 0] });
  assert(done, `page ${folio.frame} of a file is still mapped, and is to leave it`);
}

/** True: nothing maps it any more. */
function unmapAll(folio: Folio, how: Replacement): boolean {
  for (const { area, start, end } of mappingsOf(folio)) {
    const { notifiers } = area.space;
    notifiers.begin("clear", start, end);
    const done = replaceIn(area, start, end, folio, how);
    notifiers.end();
    if (!done || folio.mapCount === 0) break;
  }
  return folio.mapCount === 0;
}

/** False: an entry cannot be taken. */
function replaceIn(area: Area, start: number, end: number, folio: Folio, how: Replacement): boolean {
  const { table, id } = area.space;
  const huge = table.huge(start);
  if (huge) {
    if (huge.frame !== folio.frame || kindOf(huge.state) === ENTRY.migrating) return true;
    const isOwn = folio.isExclusive(folio.frame);
    if (isOwn && folio.pins > 0) return false;
    huge.state = movingState(huge.state, isOwn && folio.anonVma !== undefined);
    folio.removeEntireMap(id);
    if (how.cut) cutHugeEntry(area.space, start);
    return true;
  }
  for (let page = start; page < end; page++) {
    const leaf = table.leaf(page);
    if (!leaf) continue;
    const index = page % HUGE_PAGES;
    const state = leaf.states[index]!;
    const frame = leaf.frames[index]! as PhysPage;
    if (!mapsFrame(state) || frame < folio.frame || frame >= folio.frame + folio.pages) continue;
    const isOwn = folio.anonVma !== undefined && folio.isExclusive(frame);
    if (isOwn && folio.pins > 0) return false;
    const [next, number] = how.put?.(state, isOwn) ?? [
      movingState(kindOf(state) === ENTRY.exclusive ? 0 : state, isOwn),
      frame,
    ];
    leaf.set(index, next, number);
    folio.removeMap(frame, id);
  }
  return true;
}

/** Entries that count as mappings of a folio. */
export const mapsFrame = (state: number): boolean => {
  const kind = kindOf(state);
  return kind === ENTRY.present || kind === ENTRY.devicePrivate || kind === ENTRY.exclusive;
};

/** Sets the entries again that wait for `from`: they map `to` now, which may be the same. They are found as those of `known`. */
export function restoreEntries(from: Folio, to: Folio, known: Folio = to): void {
  for (const { area, start, end } of mappingsOf(known)) {
    const huge = area.space.table.huge(start);
    if (huge) {
      if (kindOf(huge.state) === ENTRY.migrating && huge.frame === from.frame) restoreHuge(area, start, huge.state, to);
      continue;
    }
    for (let page = start; page < end; page++) {
      const leaf = area.space.table.leaf(page);
      if (!leaf) continue;
      const index = page % HUGE_PAGES;
      const state = leaf.states[index]!;
      const frame = leaf.frames[index]!;
      if (kindOf(state) !== ENTRY.migrating || frame < from.frame || frame >= from.frame + from.pages) continue;
      const now = (to.frame + frame - from.frame) as PhysPage;
      if (to.kind === "zero") {
        leaf.set(index, ENTRY.present, to.frame);
        continue;
      }
      leaf.set(index, restoredState(area, state, to), now);
      to.addMap(now, area.space.id);
      if (to.anonVma && (state & (WRITABLE | KEPT)) !== 0) to.setExclusive(now, true);
    }
  }
}

function restoreHuge(area: Area, page: number, state: number, to: Folio): void {
  const { table, id } = area.space;
  const now = restoredState(area, state, to);
  table.setSlot(page, hugeEntry(kindOf(now), (now & WRITABLE) !== 0, to.frame));
  to.addEntireMap(id);
  if (to.anonVma && (state & (WRITABLE | KEPT)) !== 0) to.setAllExclusive(true);
}

function restoredState(area: Area, state: number, to: Folio): number {
  const kind = to.region?.kind === "device-private" ? ENTRY.devicePrivate : ENTRY.present;
  const isSharedWritable = area.has(AREA.shared) && area.has(AREA.write);
  return kind | ((state & WRITABLE) !== 0 || isSharedWritable ? WRITABLE : 0);
}

/**
 * Cuts a huge folio into pages, wherever it is mapped. The caller holds it once; nobody holds the pages.
 *
 * @returns the pages; undefined if it cannot be cut, being pinned or held by others
 */
export function splitFolio(frames: FrameSource, folio: Folio): Folio[] | undefined {
  if (folio.kind !== "anonymous" || folio.pins > 0 || folio.held > 1) return undefined;
  if (!unmapToMove(folio, true)) {
    restoreEntries(folio, folio);
    return undefined;
  }
  folio.held = 0;
  const parts = frames.split(folio);
  // What holds nothing but zeros need not stay: the zero page does as well.
  const zero = folio.region ? undefined : frames.zero();
  for (const part of parts) restoreEntries(part, zero && frames.isZeroFilled(part.frame) ? zero : part, part);
  for (const part of parts) frames.release(part);
  return parts;
}
