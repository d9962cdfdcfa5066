/**
 * Memory of files: a read brings neighbours along that are in memory already, a private write brings a copy.
 *
 * Specified by: behaviour of Linux 7.2 (do_read_fault, do_cow_fault, do_shared_fault, filemap_map_pages).
 */
import type { FaultOutcome } from "../../../platform/index.ts";
import { prepareAnonVma } from "./anon-links.ts";
import { adopt, mapOwn, ownState } from "./anonymous.ts";
import { ENTRY, HUGE_PAGES, WRITABLE } from "./page-table.ts";
import { AREA, type Area, type Folio, type Space } from "./structures.ts";

/** First touch of a page that a file stands behind. */
export function fileTouch(space: Space, area: Area, page: number, write: boolean): FaultOutcome {
  const object = area.object!;
  if (!write && mapAround(space, area, page)) return "done";
  const isCopy = write && area.isPrivate;
  if (isCopy) prepareAnonVma(area, space.areas);
  const offset = area.offsetOf(page);
  if (offset >= object.endOffset) return "no-page";
  const folio = object.get(offset);
  if (!folio) return "out-of-memory";
  if (!isCopy) {
    mapShared(space, area, page, folio);
    return "done";
  }
  space.frames.hold(folio); // what is to be copied must not leave to make room for the copy
  const copy = space.frames.allocate(0);
  if (copy) space.frames.copy(folio.frame, copy.frame);
  space.frames.letGo(folio);
  if (!copy) return "out-of-memory";
  adopt(copy, area, page);
  space.table.makeLeaf(page);
  mapOwn(space, copy, page, ownState(area));
  return "done";
}

function mapShared(space: Space, area: Area, page: number, folio: Folio): void {
  const canWrite = area.has(AREA.shared) && area.has(AREA.write);
  space.table.makeLeaf(page).set(page % HUGE_PAGES, ENTRY.present | (canWrite ? WRITABLE : 0), folio.frame);
  folio.addMap(folio.frame, space.id);
}

/** Maps what is in memory of the window around `page`. True if `page` itself was. */
function mapAround(space: Space, area: Area, page: number): boolean {
  const window = space.frames.settings.faultAroundPages;
  if (window <= 1) return false;
  const inTable = page % HUGE_PAGES;
  const first = page - inTable + Math.max(inTable - (inTable % window), inTable - Math.min(inTable, page - area.start));
  const end = Math.min(first + window, page - inTable + HUGE_PAGES, area.end);
  const object = area.object!;
  let found = false;
  for (let at = first; at < end; at++) {
    const offset = area.offsetOf(at);
    if (offset >= object.endOffset) break;
    const folio = object.peek(offset);
    if (!folio || folio.locked || space.table.state(at) !== ENTRY.none) continue;
    mapShared(space, area, at, folio);
    if (at === page) found = true;
  }
  return found;
}
