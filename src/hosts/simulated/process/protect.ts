/**
 * Protection of pages: what the process may do with them changes, entry by entry.
 *
 * Idea: taking a right away acts at once; giving the right to write acts at once only for pages that the process has for itself, others
 * wait for the fault that copies them.
 * Specified by: behaviour of Linux 7.2 (mprotect).
 */
import type { PhysPage } from "../../../base/index.ts";
import type { Steps } from "../../../platform/index.ts";
import type { AddressSpace } from "./address-space.ts";
import { ANNOUNCED } from "./anonymous.ts";
import { changeFlags } from "./areas.ts";
import { noArea } from "./errors.ts";
import { splitHugeEntry } from "./huge.ts";
import { checkPages } from "./map.ts";
import { ENTRY, HUGE_PAGES, HugeEntry, KEPT, kindOf, MIDDLE_PAGES, WRITABLE } from "./page-table.ts";
import { ACCESS_BITS, AREA, type Area, type Folio, type Space } from "./structures.ts";

/**
 * @param access bits of read, write, execute
 * @throws DmaError ERR_DMA_USER_HOLE (ENOMEM) at a hole, what is below is done then; ERR_DMA_USER_RANGE (EINVAL)
 */
export function* protectSteps(space: AddressSpace, page: number, pages: number, access: number): Steps<void> {
  checkPages(page, pages);
  const end = page + pages;
  yield* space.beginWrite();
  try {
    for (let at = page; at < end; ) {
      const area = space.areas.at(at);
      if (!area) throw noArea(at);
      const partEnd = Math.min(area.end, end);
      const changed = yield* protectPart(space, area, at, partEnd, access);
      at = Math.max(partEnd, changed.end);
    }
  } finally {
    space.endWrite();
  }
}

function* protectPart(space: AddressSpace, area: Area, start: number, end: number, access: number): Steps<Area> {
  let flags = (area.flags & ~ACCESS_BITS) | access;
  if (flags === area.flags) return area;
  if ((access & AREA.write) !== 0) {
    if (!area.has(AREA.accounted | AREA.write | AREA.hugetlb | AREA.shared)) flags |= AREA.accounted;
  } else if (area.isAnonymous && !area.anonVma) flags &= ~AREA.accounted;
  const changed = changeFlags(space, area, start, end, flags);
  if (changed.has(AREA.hugetlb)) {
    yield* announced(space, start, end, () => protectHugetlb(space, changed, start, end));
    return changed;
  }
  for (let at = start; at < end; ) {
    const from = at;
    // Nothing below: nobody needs to hear. From the first table on, all of the rest is one change.
    if (space.table.hasMiddle(at)) {
      yield* announced(space, from, end, () => protectEntries(space, changed, from, end));
      break;
    }
    at = Math.min(end, (Math.floor(at / MIDDLE_PAGES) + 1) * MIDDLE_PAGES);
  }
  return changed;
}

function* announced(space: Space, start: number, end: number, change: () => void): Steps<void> {
  space.notifiers.begin("protection-area", start, end);
  yield ANNOUNCED;
  change();
  space.notifiers.end();
}

function protectEntries(space: Space, area: Area, start: number, end: number): void {
  const { table } = space;
  for (let page = start; page < end; ) {
    if (!table.hasMiddle(page)) {
      page = (Math.floor(page / MIDDLE_PAGES) + 1) * MIDDLE_PAGES;
      continue;
    }
    const chunkEnd = Math.min(end, page - (page % HUGE_PAGES) + HUGE_PAGES);
    const slot = table.slot(page);
    if (slot instanceof HugeEntry) {
      if (chunkEnd - page === HUGE_PAGES) {
        const folio = space.frames.folio(slot.frame)!;
        slot.state = protectedState(area, slot.state, folio, folio.frame);
        page = chunkEnd;
        continue;
      }
      splitHugeEntry(space, page);
    }
    const leaf = table.leaf(page);
    if (leaf)
      for (let at = page; at < chunkEnd; at++) {
        const index = at % HUGE_PAGES;
        const state = leaf.states[index]!;
        const kind = kindOf(state);
        if (kind === ENTRY.none || kind === ENTRY.swapped || kind === ENTRY.poisoned) continue;
        const frame = leaf.frames[index]! as PhysPage;
        const folio = kind === ENTRY.special ? undefined : space.frames.folio(frame);
        leaf.states[index] = protectedState(area, state, folio, frame);
      }
    page = chunkEnd;
  }
}

function protectedState(area: Area, state: number, folio: Folio | undefined, frame: PhysPage): number {
  switch (kindOf(state)) {
    case ENTRY.present: {
      const isOwn = folio?.anonVma !== undefined && folio.isExclusive(frame);
      return ENTRY.present | (area.has(AREA.write) && (area.has(AREA.shared) || isOwn) ? WRITABLE : 0);
    }
    case ENTRY.special:
      return ENTRY.special | (area.has(AREA.write) && area.has(AREA.shared) ? WRITABLE : 0);
    case ENTRY.devicePrivate:
      return state & ~WRITABLE;
    case ENTRY.migrating:
      return (state & WRITABLE) === 0 ? state : ENTRY.migrating | (folio?.anonVma ? KEPT : 0);
    default:
      return state;
  }
}

function protectHugetlb(space: Space, area: Area, start: number, end: number): void {
  for (let page = start; page < end; page += HUGE_PAGES) {
    const entry = space.table.huge(page);
    if (!entry || kindOf(entry.state) !== ENTRY.present) continue;
    // What is private waits for a fault, also if it could be written before.
    entry.state = ENTRY.present | (area.has(AREA.write) && area.has(AREA.shared) ? WRITABLE : 0);
  }
}
