/**
 * Small pages that become a huge one: what khugepaged does in the background, and a program can ask for.
 *
 * Idea: a new huge page is filled from the 512 small ones, wherever they lie, and takes the place of their table. What is absent becomes
 * zeros, what is in swap is brought first. Pages that others share are copied, and stay theirs.
 * Promises: a page that is pinned or held stops it, and leaves everything as it was. Watchers hear of all 2 MiB.
 * Not for: files. Specified by: behaviour of Linux 7.2 (madvise_collapse, collapse_huge_page).
 */
import type { Errno, PhysPage } from "../../../base/index.ts";
import type { Steps } from "../../../platform/index.ts";
import { prepareAnonVma } from "./anon-links.ts";
import { ANNOUNCED, mapHugeOwn } from "./anonymous.ts";
import { ENTRY, HUGE_ORDER, HUGE_PAGES, HugeEntry, kindOf, type LeafTable } from "./page-table.ts";
import { AREA, type Area, type Folio, type Space } from "./structures.ts";
import { swapIn } from "./swap-in.ts";

/**
 * Collapses the 2 MiB from page `start` on. The caller has the areas for itself.
 *
 * @returns undefined if a huge page is there now, else why not: EINVAL it can never be, EAGAIN not now, ENOMEM
 */
export function* collapseSteps(space: Space, area: Area, start: number): Steps<Errno | undefined> {
  const { table, frames, notifiers } = space;
  const isInside = start >= area.start && start + HUGE_PAGES <= area.end;
  if (!area.isAnonymous || area.has(AREA.noHuge) || !isInside) return "EINVAL";
  const slot = table.hasMiddle(start) ? table.slot(start) : undefined;
  if (slot instanceof HugeEntry) return kindOf(slot.state) === ENTRY.present ? undefined : "EINVAL";
  if (slot === undefined) return "EINVAL";
  for (let page = start; page < start + HUGE_PAGES; page++)
    while (kindOf(table.state(page)) === ENTRY.swapped)
      if ((yield* swapIn(space, area, page)) !== "done") return "ENOMEM";
  const why = whyNot(space, start);
  if (why !== undefined) return why;
  const huge = frames.allocate(HUGE_ORDER);
  if (!huge) return "ENOMEM";
  notifiers.begin("clear", start, start + HUGE_PAGES);
  yield ANNOUNCED;
  const changed = whyNot(space, start);
  if (changed === undefined) {
    prepareAnonVma(area, space.areas);
    fill(space, table.leaf(start)!, huge);
    mapHugeOwn(space, area, start, huge);
  } else frames.release(huge);
  notifiers.end();
  return changed;
}

/** Why the pages that are there cannot be joined. */
function whyNot({ table, frames }: Space, start: number): Errno | undefined {
  const leaf = table.leaf(start);
  if (!leaf) return "EINVAL";
  for (let index = 0; index < HUGE_PAGES; index++) {
    const kind = kindOf(leaf.states[index]!);
    if (kind === ENTRY.none) continue;
    if (kind === ENTRY.swapped || kind === ENTRY.migrating) return "EAGAIN";
    if (kind !== ENTRY.present) return "EINVAL";
    const folio = frames.folio(leaf.frames[index]! as PhysPage)!;
    if (folio.kind === "zero") continue;
    if (folio.region) return "EINVAL";
    if (folio.locked || folio.pins > 0 || folio.isInWork) return "EAGAIN";
  }
  return undefined;
}

/** Copies what is there, and lets the small pages go. */
function fill({ frames, id }: Space, leaf: LeafTable, huge: Folio): void {
  for (let index = 0; index < HUGE_PAGES; index++) {
    if (kindOf(leaf.states[index]!) === ENTRY.none) continue;
    const frame = leaf.frames[index]! as PhysPage;
    const folio = frames.folio(frame)!;
    if (folio.kind === "zero") continue;
    frames.copy(frame, (huge.frame + index) as PhysPage);
    leaf.set(index, ENTRY.none, 0);
    folio.removeMap(frame, id);
    frames.release(folio);
  }
}
