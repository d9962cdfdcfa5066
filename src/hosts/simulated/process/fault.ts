/**
 * A page fault: what happens when the process touches a page that its entry does not allow it to.
 *
 * Idea: one call does one thing, as the processor would find it: bring a page, copy it, take it back from a device. Whether that was
 * enough is found by trying again. So the same function serves the process itself, pins, and devices that walk the table.
 * Promises: nothing is changed by an access that ends in a signal, but for tables that were made.
 * Specified by: behaviour of Linux 7.2 (handle_mm_fault).
 */
import { type FaultOutcome, type Steps, WAITING } from "../../../platform/index.ts";
import { hugeFits, hugeTouch, touch, writeToRead, writeToReadHuge } from "./anonymous.ts";
import { takeBack } from "./exclusive.ts";
import { fileTouch } from "./file-fault.ts";
import { hugetlbFault } from "./hugetlb.ts";
import { ENTRY, HugeEntry, kindOf, WRITABLE } from "./page-table.ts";
import { AREA, type Area, type Space } from "./structures.ts";
import { swapIn } from "./swap-in.ts";

/** How a page is wanted: `unshare` a copy of one's own, to read. */
export type Wanted = "read" | "write" | "unshare";

/** Why the process itself may not access `page` so; undefined: it may. */
export function refusal(area: Area | undefined, write: boolean): "no-area" | "no-permission" | undefined {
  if (!area) return "no-area";
  const allowed = write ? AREA.write : AREA.read | AREA.write | AREA.execute;
  return area.has(allowed) ? undefined : "no-permission";
}

/** One fault at `page` of `area`, which allows the access. The areas are held still. */
export function* faultIn(space: Space, area: Area, page: number, wanted: Wanted): Steps<FaultOutcome> {
  const write = wanted === "write";
  if (area.has(AREA.hugetlb)) return yield* hugetlbFault(space, area, page, write, wanted === "unshare");
  const { table } = space;
  table.makeMiddle(page);
  const slot = table.slot(page);
  if (slot === undefined && hugeFits(space, area, page) && hugeTouch(space, area, page, write)) return "done";
  if (slot instanceof HugeEntry) {
    const kind = kindOf(slot.state);
    if (kind === ENTRY.migrating) {
      yield WAITING;
      return "done";
    }
    if (kind === ENTRY.devicePrivate) {
      const folio = space.frames.folio(slot.frame)!;
      return yield* folio.region!.bringBack(space, area, page, folio, true);
    }
    if (wanted === "read" || (slot.state & WRITABLE) !== 0) return "done";
    if (yield* writeToReadHuge(space, area, page, slot, wanted === "unshare")) return "done";
  }
  return yield* faultInSmall(space, area, page, wanted);
}

function* faultInSmall(space: Space, area: Area, page: number, wanted: Wanted): Steps<FaultOutcome> {
  const state = space.table.state(page);
  const write = wanted === "write";
  switch (kindOf(state)) {
    case ENTRY.none:
      if (area.has(AREA.io)) return "no-page";
      return area.isAnonymous ? touch(space, area, page, write) : fileTouch(space, area, page, write);
    case ENTRY.present:
      if (wanted === "read" || (state & WRITABLE) !== 0) return "done";
      return yield* writeToRead(space, area, page, wanted === "unshare");
    case ENTRY.swapped:
      return yield* swapIn(space, area, page);
    case ENTRY.devicePrivate: {
      const folio = space.frames.folio(space.table.frame(page))!;
      while (folio.locked) yield WAITING;
      return yield* folio.region!.bringBack(space, area, page, folio, false);
    }
    case ENTRY.exclusive:
      return yield* takeBack(space, area, page);
    case ENTRY.migrating:
      yield WAITING;
      return "done";
    case ENTRY.poisoned:
      return "poisoned";
    default:
      return "done";
  }
}
