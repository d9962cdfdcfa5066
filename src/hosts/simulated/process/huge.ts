/**
 * Huge entries cut into small ones: the folio stays whole, 512 entries map it instead of one.
 *
 * Idea: whatever needs to act on a part (a border inside, a change of permission, a copy of one page) first cuts the entry.
 * Watchers are told, since entries of devices that are as large must go as well.
 */
import type { PhysPage } from "../../../base/index.ts";
import { ENTRY, HUGE_PAGES, HugeEntry, KEPT, kindOf, LeafTable, WRITABLE } from "./page-table.ts";
import type { Area, Space } from "./structures.ts";

const down = (page: number): number => page - (page % HUGE_PAGES);

/** Cuts the entry for the 2 MiB of `page`, if it is a huge one, and tells watchers in any case (unless the system is set up otherwise). */
export function splitHugeEntry(space: Space, page: number): void {
  const start = down(page);
  if (space.frames.settings.quietSplits && space.table.huge(start) === undefined) return;
  space.notifiers.begin("clear", start, start + HUGE_PAGES);
  cutHugeEntry(space, page);
  space.notifiers.end();
}

/** The same without telling watchers: for callers that have told them already. */
export function cutHugeEntry(space: Space, page: number): void {
  const start = down(page);
  const entry = space.table.huge(start);
  if (entry === undefined) return;
  const leaf = new LeafTable();
  const folio = space.frames.folio(entry.frame)!;
  if (folio.kind === "zero") {
    const zero = space.frames.zero()!;
    for (let i = 0; i < HUGE_PAGES; i++) leaf.set(i, ENTRY.present, zero.frame);
  } else {
    const isMoving = kindOf(entry.state) === ENTRY.migrating;
    const isOwn = folio.isExclusive(folio.frame);
    for (let i = 0; i < HUGE_PAGES; i++) {
      const frame = (entry.frame + i) as PhysPage;
      leaf.set(i, entry.state, frame);
      if (!isMoving) folio.addMap(frame, space.id);
    }
    if (!isMoving) {
      folio.setAllExclusive(isOwn);
      folio.removeEntireMap(space.id);
    }
  }
  space.table.setSlot(start, leaf);
}

/** Before a border of `area` comes to lie at `page`: no huge entry may lie across it. */
export function splitHugeAtBorder(space: Space, area: Area, page: number): void {
  const start = down(page);
  if (page === start || start < area.start || start + HUGE_PAGES > area.end) return;
  if (space.table.hasMiddle(page)) splitHugeEntry(space, page);
}

/** State of an entry while its page moves: what it will be again afterwards. */
export const movingState = (state: number, isExclusive: boolean): number =>
  ENTRY.migrating | ((state & WRITABLE) !== 0 ? WRITABLE : isExclusive ? KEPT : 0);

/** A huge entry that is new. */
export const hugeEntry = (kind: number, writable: boolean, frame: PhysPage): HugeEntry =>
  new HugeEntry(kind | (writable ? WRITABLE : 0), frame);
