/**
 * Entries that go: cleared one by one or 512 at a time, with what that means for the folios behind them.
 *
 * Idea: whoever unmaps, drops contents or truncates has told the watchers already; here the entries are cleared and tables that serve
 * nothing any more are freed. Copies that a process made of a file's pages can be spared.
 */
import type { PhysPage } from "../../../base/index.ts";
import { splitHugeEntry } from "./huge.ts";
import { ENTRY, HUGE_PAGES, HugeEntry, kindOf, type LeafTable, MIDDLE_PAGES } from "./page-table.ts";
import { AREA, type Area, type Folio, type Space } from "./structures.ts";

interface ZapOptions {
  /** Also what the process has of its own. */
  readonly copiesToo: boolean;
  /** A table of 512 entries that is cleared whole is freed. */
  readonly freeTables?: boolean;
}

const ALL: ZapOptions = { copiesToo: true };

/** Clears the entries of pages [start, end) of `area`. */
export function zapPages(space: Space, area: Area, start: number, end: number, options: ZapOptions = ALL): void {
  const { table } = space;
  for (let page = start; page < end; ) {
    if (!table.hasMiddle(page)) {
      page = (Math.floor(page / MIDDLE_PAGES) + 1) * MIDDLE_PAGES;
      continue;
    }
    const chunkEnd = Math.min(end, page - (page % HUGE_PAGES) + HUGE_PAGES);
    const isWhole = chunkEnd - page === HUGE_PAGES;
    const slot = table.slot(page);
    if (slot instanceof HugeEntry) {
      if (isWhole || area.has(AREA.hugetlb)) {
        zapHuge(space, page, slot, options);
        page = chunkEnd;
        continue;
      }
      splitHugeEntry(space, page);
    }
    const leaf = table.leaf(page);
    if (leaf) {
      for (let at = page; at < chunkEnd; at++) zapPage(space, leaf, at % HUGE_PAGES, options);
      if (options.freeTables && isWhole && leaf.used === 0) table.setSlot(page, undefined);
    }
    page = chunkEnd;
  }
}

const isSpared = (folio: Folio, { copiesToo }: ZapOptions): boolean => !copiesToo && folio.anonVma !== undefined;

function zapPage(space: Space, leaf: LeafTable, index: number, options: ZapOptions): void {
  const kind = kindOf(leaf.states[index]!);
  if (kind === ENTRY.none) return;
  const frame = leaf.frames[index]! as PhysPage;
  if (kind === ENTRY.present || kind === ENTRY.devicePrivate || kind === ENTRY.exclusive || kind === ENTRY.migrating) {
    const folio = space.frames.folio(frame)!;
    if (isSpared(folio, options)) return;
    leaf.set(index, ENTRY.none, 0);
    if (kind === ENTRY.migrating || folio.kind === "zero") return;
    folio.removeMap(frame, space.id);
    space.frames.release(folio);
  } else if (kind !== ENTRY.swapped) leaf.set(index, ENTRY.none, 0);
  else if (options.copiesToo) {
    leaf.set(index, ENTRY.none, 0);
    space.frames.swap!.drop(frame);
  }
}

function zapHuge(space: Space, page: number, entry: HugeEntry, options: ZapOptions): void {
  const folio = space.frames.folio(entry.frame)!;
  if (isSpared(folio, options)) return;
  space.table.setSlot(page, undefined);
  if (kindOf(entry.state) === ENTRY.migrating || folio.kind === "zero") return;
  folio.removeEntireMap(space.id);
  space.frames.release(folio);
}

/** Frees the tables that served only `areas`, which are unmapped; `floor` and `ceiling` are where the next areas begin. */
export function freeTables(space: Space, areas: readonly Area[], floor: number, ceiling: number): void {
  for (const { start, end } of areas) space.table.free(start, end, floor, ceiling);
}
