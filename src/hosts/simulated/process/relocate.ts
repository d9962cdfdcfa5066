/**
 * Pages of a process that go to other frames of memory: what compaction, NUMA balancing and move_pages do.
 *
 * Idea: a page is taken out of all tables that map it, copied, and put back with its new number; whoever touches it meanwhile waits. A
 * huge page moves whole. Watchers hear, since a device that kept the old number would read a page that is somebody else's.
 * Promises: a page that is pinned or held stays where it is, and all others move or stay whole.
 * Specified by: behaviour of Linux 7.2 (migrate_pages).
 */
import type { PhysPage } from "../../../base/index.ts";
import type { Steps } from "../../../platform/index.ts";
import type { AddressSpace } from "./address-space.ts";
import { checkPages } from "./map.ts";
import { TAKEN } from "./migrate.ts";
import { restoreEntries, unmapToMove } from "./moving.ts";
import { ENTRY, kindOf } from "./page-table.ts";
import type { Folio, FrameSource } from "./structures.ts";

/**
 * Moves the pages of [page, page + pages) that can move. How many did; those of a huge page count all.
 *
 * @throws DmaError ERR_DMA_USER_RANGE (EINVAL)
 */
export function* relocateSteps(space: AddressSpace, page: number, pages: number): Steps<number> {
  checkPages(page, pages);
  yield* space.beginRead();
  try {
    let moved = 0;
    for (let at = page; at < page + pages; ) {
      const folio =
        kindOf(space.table.state(at)) === ENTRY.present ? space.frames.folio(space.table.frame(at)) : undefined;
      const inside = folio ? space.table.frame(at) - folio.frame : 0;
      if (folio && (yield* relocate(space.frames, folio))) moved += folio.pages;
      at += folio ? folio.pages - inside : 1;
    }
    return moved;
  } finally {
    space.endRead();
  }
}

/** False: it stays, or there is no other place. */
function* relocate(frames: FrameSource, folio: Folio): Steps<boolean> {
  if (folio.kind === "anonymous" ? folio.region !== undefined : folio.object?.replace === undefined) return false;
  if (folio.kind === "zero" || folio.locked || folio.pins > 0 || folio.held > 0) return false;
  frames.hold(folio);
  const place = frames.allocate(folio.order);
  if (!place) {
    frames.letGo(folio);
    return false;
  }
  folio.locked = true;
  unmapToMove(folio, false);
  yield TAKEN;
  const moves = folio.mapCount === 0 && folio.pins === 0 && folio.held === 1;
  if (moves) {
    frames.copy(folio.frame as PhysPage, place.frame, folio.pages);
    place.become(folio);
    folio.object?.replace?.(folio, place);
  }
  restoreEntries(folio, moves ? place : folio);
  folio.locked = false;
  frames.letGo(folio);
  frames.release(place); // unless something maps it now
  return moves;
}
