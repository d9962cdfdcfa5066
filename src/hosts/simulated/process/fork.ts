/**
 * Fork: a child sees what its parent sees, and nobody notices that pages are shared until one writes.
 *
 * Idea: areas are copied, entries too, and both sides lose the right to write what is private. Areas in which nothing of the
 * process's own can be are not even looked at: the child finds their contents as the parent did. Pages that a device holds for its
 * own are copied at once, so that what the device writes stays the parent's.
 * Specified by: behaviour of Linux 7.2 (dup_mmap, copy_page_range).
 */
import type { PhysPage } from "../../../base/index.ts";
import type { Steps } from "../../../platform/index.ts";
import type { AddressSpace } from "./address-space.ts";
import { forkAnonLinks } from "./anon-links.ts";
import { ANNOUNCED, adopt, mapOwn, ownState } from "./anonymous.ts";
import { hangBehind } from "./areas.ts";
import { userMemory } from "./errors.ts";
import { restorePresent } from "./exclusive.ts";
import { hugeEntry, splitHugeEntry } from "./huge.ts";
import { ENTRY, HUGE_PAGES, HugeEntry, KEPT, kindOf, MIDDLE_PAGES, WRITABLE } from "./page-table.ts";
import { PeerObject } from "./peer-object.ts";
import { AREA, Area, type Space } from "./structures.ts";

/**
 * Fills `child`, which is empty, with what `parent` has.
 *
 * @throws DmaError ERR_DMA_USER_MEMORY (ENOMEM); `child` has part of it then and is to be ended
 */
export function* forkSpace(parent: AddressSpace, child: AddressSpace): Steps<void> {
  yield* parent.beginWrite();
  try {
    for (const area of [...parent.areas]) {
      if (area.has(AREA.dontFork)) continue;
      const copy = new Area(child, { ...area, start: area.start, end: area.end });
      if (!area.has(AREA.wipeOnFork)) forkAnonLinks(copy, area);
      if (copy.object) {
        hangBehind(copy, area);
        copy.object.acquire();
      }
      child.areas.insert(copy);
      const isNeeded = area.anonVma !== undefined || area.has(AREA.io) || area.object instanceof PeerObject;
      if (!area.has(AREA.wipeOnFork) && isNeeded) yield* copyEntries(parent, child, area, copy);
    }
  } finally {
    parent.endWrite();
  }
}

function* copyEntries(parent: Space, child: Space, from: Area, to: Area): Steps<void> {
  const isHuge = from.has(AREA.hugetlb);
  const isCow = from.isPrivate;
  if (isCow) {
    parent.notifiers.begin(isHuge ? "clear" : "protection-page", from.start, from.end);
    yield ANNOUNCED;
  }
  try {
    const { table } = parent;
    for (let page = from.start; page < from.end; ) {
      if (!table.hasMiddle(page)) {
        page = (Math.floor(page / MIDDLE_PAGES) + 1) * MIDDLE_PAGES;
        continue;
      }
      child.table.makeMiddle(page);
      const end = Math.min(from.end, page - (page % HUGE_PAGES) + HUGE_PAGES);
      copyChunk(parent, child, from, to, page, end);
      page = end;
    }
  } finally {
    if (isCow) parent.notifiers.end();
  }
}

function copyChunk(parent: Space, child: Space, from: Area, to: Area, page: number, end: number): void {
  const slot = parent.table.slot(page);
  if (slot === undefined) return;
  if (slot instanceof HugeEntry) {
    if (copyHuge(parent, child, from, page, slot)) return;
    splitHugeEntry(parent, page);
  }
  child.table.makeLeaf(page);
  for (let at = page; at < end; at++) copyPage(parent, child, from, to, at);
}

/** False: it has to be cut, since a device holds it. */
function copyHuge(parent: Space, child: Space, from: Area, page: number, entry: HugeEntry): boolean {
  const folio = parent.frames.folio(entry.frame)!;
  const kind = kindOf(entry.state);
  const isMoving = kind === ENTRY.migrating;
  if (folio.kind !== "zero" && from.isPrivate) {
    const isKept = parent.hasPinned && folio.pins > 0 && folio.isExclusive(folio.frame);
    if (!isMoving && isKept && folio.kind !== "hugetlb") return false;
    entry.state = kind;
    if (!isMoving) folio.setAllExclusive(false);
  }
  child.table.setSlot(page, hugeEntry(kind, (entry.state & WRITABLE) !== 0, entry.frame));
  if (folio.kind !== "zero" && !isMoving) folio.addEntireMap(child.id);
  return true;
}

function copyPage(parent: Space, child: Space, from: Area, to: Area, page: number): void {
  const { table, frames } = parent;
  if (kindOf(table.state(page)) === ENTRY.exclusive) restorePresent(parent, from, page);
  const state = table.state(page);
  const kind = kindOf(state);
  if (kind === ENTRY.none) return;
  const frame = table.frame(page);
  if (kind === ENTRY.swapped) {
    frames.swap!.share(frame);
    table.set(page, kind, frame); // neither side's own any more
    child.table.set(page, kind, frame);
    return;
  }
  if (kind !== ENTRY.present && kind !== ENTRY.devicePrivate && kind !== ENTRY.migrating) {
    child.table.set(page, state, frame);
    return;
  }
  const folio = frames.folio(frame)!;
  const isMoving = kind === ENTRY.migrating;
  if (!isMoving && folio.anonVma && folio.isExclusive(frame) && parent.hasPinned && folio.pins > 0) {
    copyNow(parent, child, to, page, frame);
    return;
  }
  const shared = from.isPrivate ? state & ~(WRITABLE | KEPT) : state;
  if (shared !== state) table.set(page, shared, frame);
  child.table.set(page, shared, frame);
  if (isMoving || folio.kind === "zero") return;
  if (folio.anonVma) folio.setExclusive(frame, false);
  folio.addMap(frame, child.id);
}

/** A device writes to the parent's page: the child gets a page of its own. */
function copyNow(parent: Space, child: Space, to: Area, page: number, frame: PhysPage): void {
  const copy = parent.frames.allocate(0);
  if (!copy) throw userMemory(1);
  parent.frames.copy(frame, copy.frame);
  adopt(copy, to, page);
  mapOwn(child, copy, page, ownState(to));
}
