/**
 * A page that comes back from swap because the process, a pin or a device needs it.
 *
 * Idea: whoever comes first brings it, and meanwhile others wait; whoever shares the slot gets the same page. An entry that was one
 * process's own before the page went is so again, and may be written at once, without a copy.
 * Promises: watchers hear nothing, since nothing that they could have read goes. What was unmapped while the page was read is not mapped.
 * Specified by: behaviour of Linux 7.2 (do_swap_page).
 */
import { PAGE_SIZE, PhysPage } from "../../../base/index.ts";
import { type FaultOutcome, type Steps, WAITING } from "../../../platform/index.ts";
import { prepareAnonVma } from "./anon-links.ts";
import { ENTRY, KEPT, WRITABLE } from "./page-table.ts";
import { AREA, type Area, type Folio, type Space } from "./structures.ts";
import type { SwapSpace } from "./swap.ts";

/** The work has stopped while a page is read from swap. */
const SWAPPING_IN = "a page is read from swap";

/** The process touched a page that is in swap. The areas are held still. */
export function* swapIn(space: Space, area: Area, page: number): Steps<FaultOutcome> {
  const { frames, table } = space;
  const swap = frames.swap!;
  const state = table.state(page);
  const slot = table.frame(page) as number;
  let folio = swap.cached(slot);
  if (folio?.locked) {
    yield WAITING;
    return "done";
  }
  swap.share(slot); // it stays while it is read, whatever becomes of the entry
  try {
    if (!folio) {
      folio = frames.allocate(0);
      if (!folio) return "out-of-memory";
      frames.hold(folio);
      swap.cache(slot, folio);
      folio.locked = true;
      yield SWAPPING_IN;
      load(space, swap, slot, folio);
      folio.locked = false;
    }
    const isStill = table.state(page) === state && (table.frame(page) as number) === slot;
    if (isStill) enter(space, area, page, folio, state);
    // Two are this work and the entry: nobody else would look for the page here.
    if (!isStill || swap.usersOf(slot) === 2) swap.uncache(slot);
    if (isStill) swap.drop(slot);
    return "done";
  } finally {
    swap.drop(slot);
  }
}

function load(space: Space, swap: SwapSpace<Folio>, slot: number, folio: Folio): void {
  const bytes = new Uint8Array(PAGE_SIZE);
  swap.read(slot, 0, bytes);
  space.frames.memory.write(PhysPage.start(folio.frame), bytes);
  swap.counts.in++;
}

/** Maps `folio` where the entry said that it is in swap. */
function enter(space: Space, area: Area, page: number, folio: Folio, state: number): void {
  const swap = space.frames.swap!;
  const slot = space.table.frame(page) as number;
  const isLast = swap.usersOf(slot) === 2 && folio.mapCount === 0;
  const isOwn = (state & KEPT) !== 0 || isLast;
  const anonVma = prepareAnonVma(area, space.areas);
  if (folio.kind !== "anonymous") {
    folio.kind = "anonymous";
    // What others map too must be found from all of them: from the oldest.
    folio.anonVma = isOwn ? anonVma : anonVma.root;
    folio.offset = area.offsetOf(page);
  }
  space.table.set(page, ENTRY.present | (isOwn && area.has(AREA.write) ? WRITABLE : 0), folio.frame);
  folio.addMap(folio.frame, space.id);
  folio.setExclusive(folio.frame, isOwn);
}
