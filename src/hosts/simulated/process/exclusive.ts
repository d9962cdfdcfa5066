/**
 * Pages for one device alone: the process gives up a page for as long as it does not touch it, so that the device's atomic operations
 * need no bus that knows them.
 *
 * Idea: the entry says that the page is given away; the folio stays mapped and stays where it is. A touch of the process takes it back.
 * Specified by: behaviour of Linux 7.2 (make_device_exclusive, remove_device_exclusive_entry).
 */
import { type FaultOutcome, type Steps, WAITING } from "../../../platform/index.ts";
import { ANNOUNCED } from "./anonymous.ts";
import { ENTRY, kindOf, WRITABLE } from "./page-table.ts";
import { AREA, type Area, type Space } from "./structures.ts";

/** The process touched a page that a device has for itself. */
export function* takeBack(space: Space, area: Area, page: number): Steps<FaultOutcome> {
  const folio = space.frames.folio(space.table.frame(page))!;
  while (folio.locked) yield WAITING;
  space.notifiers.begin("clear", page, page + 1);
  yield ANNOUNCED;
  if (kindOf(space.table.state(page)) === ENTRY.exclusive) restorePresent(space, area, page);
  space.notifiers.end();
  return "done";
}

/** The entry is an ordinary one again; writable, if the page is the process's own. */
export function restorePresent(space: Space, area: Area, page: number): void {
  const frame = space.table.frame(page);
  const folio = space.frames.folio(frame)!;
  const canWrite = area.has(AREA.write) && folio.isExclusive(frame);
  space.table.set(page, ENTRY.present | (canWrite ? WRITABLE : 0), frame);
}
