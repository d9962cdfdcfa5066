/**
 * Migration of a range to or from a device's memory: which pages can go, and how they come into the table again.
 *
 * Idea: pages are taken one 2 MiB at a time: a huge page goes whole if it lies whole in the range, else it is cut first. A page that
 * others map too is taken from all of them. Whatever cannot go (files to a device, pinned pages, other devices' pages) is put back.
 * Specified by: behaviour of Linux 7.2 (migrate_vma_setup, _pages, _finalize).
 */
import { assert, PAGE_SIZE, type PhysPage } from "../../../base/index.ts";
import type { MigrationRequest, PageMigration, Steps, UserAddr } from "../../../platform/index.ts";
import { prepareAnonVma } from "./anon-links.ts";
import { ANNOUNCED, adopt, mapOwn } from "./anonymous.ts";
import { refused } from "./errors.ts";
import { hugeEntry, movingState, splitHugeEntry } from "./huge.ts";
import { mapsFrame, restoreEntries, splitFolio, unmapToMove } from "./moving.ts";
import { ENTRY, HUGE_PAGES, HugeEntry, kindOf, type LeafTable, WRITABLE } from "./page-table.ts";
import { AREA, type Area, type Folio, type Space } from "./structures.ts";

/** The work has stopped with pages out of the table. */
export const TAKEN = "pages are taken out";

/** What is to be moved at one index. */
interface Item {
  /** Undefined: a hole, a page of zeros, or nothing that can move. */
  source: Folio | undefined;
  canMove: boolean;
  writable: boolean;
  /** 512 from here on. */
  huge: boolean;
  destination: Folio | undefined;
}

class Migration implements PageMigration {
  readonly start: UserAddr;
  readonly count: number;
  readonly #space: Space;
  readonly #area: Area;
  readonly #first: number;
  readonly #request: MigrationRequest;
  readonly #items: Item[];
  /** The page for which the CPU waits: whoever began has locked it. */
  readonly #wanted: Folio | undefined;
  /** Without it no destination becomes a page. */
  #isMoved = false;

  /** Use {@link collect}. */
  constructor(space: Space, area: Area, request: MigrationRequest, wanted: Folio | undefined) {
    this.start = request.start;
    this.#space = space;
    this.#area = area;
    this.#request = request;
    this.#first = request.start / PAGE_SIZE;
    this.count = (request.end - request.start) / PAGE_SIZE;
    this.#wanted = wanted;
    this.#items = Array.from({ length: this.count }, () => ({
      source: undefined,
      canMove: false,
      writable: false,
      huge: false,
      destination: undefined,
    }));
  }

  canMove(index: number): boolean {
    return this.#items[index]!.canMove;
  }

  source(index: number): PhysPage | undefined {
    return this.#items[index]!.source?.frame;
  }

  isWritable(index: number): boolean {
    return this.#items[index]!.writable;
  }

  order(index: number): number {
    return this.#items[index]!.huge ? 9 : 0;
  }

  setDestination(index: number, page: PhysPage, order: number): void {
    const folio = this.#space.frames.folio(page);
    assert(folio !== undefined && folio.order === order, `page ${page} is no free block of order ${order}`);
    this.#space.frames.hold(folio);
    folio.locked = true;
    this.#items[index]!.destination = folio;
  }

  allocateSystem(order: 0 | 9): PhysPage | undefined {
    return this.#space.frames.allocate(order)?.frame;
  }

  /** First part: takes what can go out of the table. */
  *take(): Steps<void> {
    const { notifiers } = this.#space;
    const end = this.#first + this.count;
    notifiers.begin("migrate", this.#first, end, this.#request.owner);
    yield ANNOUNCED;
    for (let page = this.#first; page < end; ) {
      const chunkEnd = Math.min(end, page - (page % HUGE_PAGES) + HUGE_PAGES);
      this.#takeChunk(page, chunkEnd);
      page = chunkEnd;
    }
    notifiers.end();
    this.#unmapEverywhere();
    yield TAKEN;
  }

  *move(): Steps<void> {
    const { notifiers } = this.#space;
    let announced = false;
    this.#isMoved = true;
    for (let i = 0; i < this.count; i++) {
      const item = this.#items[i]!;
      if (!item.destination) {
        item.canMove = false;
        continue;
      }
      if (!item.source) {
        if (!item.canMove) continue;
        if (!announced) {
          announced = true;
          notifiers.begin("migrate", this.#first + i, this.#first + this.count, this.#request.owner);
          yield ANNOUNCED;
        }
        i += this.#fillHole(i);
      } else i += this.#movePages(i);
    }
    if (announced) notifiers.end();
  }

  finish(): void {
    const { frames } = this.#space;
    for (const { source, destination, canMove } of this.#items) {
      if (source) {
        const now = this.#isMoved && canMove && destination ? destination : source;
        restoreEntries(source, now);
        if (source !== this.#wanted) source.locked = false;
        if (source !== this.#wanted) frames.letGo(source);
      }
      if (destination) {
        destination.locked = false;
        frames.letGo(destination);
      }
    }
  }

  #takeChunk(start: number, end: number): void {
    const { table } = this.#space;
    const slot = table.hasMiddle(start) ? table.slot(start) : undefined;
    if (slot === undefined) this.#takeHole(start, end);
    else if (slot instanceof HugeEntry) this.#takeHuge(start, end, slot);
    else this.#takePages(start, end, slot);
  }

  #isWholeHuge(start: number, end: number): boolean {
    return this.#request.huge === true && start % HUGE_PAGES === 0 && end - start === HUGE_PAGES;
  }

  #takeHole(start: number, end: number): void {
    if (!this.#area.isAnonymous) return;
    const first = this.#items[start - this.#first]!;
    if (this.#isWholeHuge(start, end)) {
      first.canMove = true;
      first.huge = true;
    } else for (let page = start; page < end; page++) this.#items[page - this.#first]!.canMove = true;
  }

  #takeHuge(start: number, end: number, entry: HugeEntry): void {
    const { frames } = this.#space;
    const folio = frames.folio(entry.frame)!;
    const kind = kindOf(entry.state);
    const { from, owner } = this.#request;
    if (kind === ENTRY.present) {
      if (from !== "system") return;
      if (folio.kind === "zero") {
        this.#takeHole(start, end);
        return;
      }
    } else if (kind !== ENTRY.devicePrivate || from !== "device" || folio.region?.owner !== owner) return;
    if (folio.locked && folio !== this.#wanted) return;
    const isOwn = folio.isExclusive(folio.frame);
    if (this.#isWholeHuge(start, end) && !(isOwn && folio.pins > 0)) {
      this.#take(start, folio, (entry.state & WRITABLE) !== 0, true);
      entry.state = movingState(entry.state, isOwn);
      folio.removeEntireMap(this.#space.id);
      return;
    }
    if (folio !== this.#wanted) frames.hold(folio);
    if (splitFolio(frames, folio)) {
      const leaf = this.#space.table.leaf(start);
      if (leaf) this.#takePages(start, end, leaf);
      else this.#takeHole(start, end);
    } else if (folio !== this.#wanted) frames.letGo(folio);
  }

  #takePages(start: number, end: number, leaf: LeafTable): void {
    const { frames } = this.#space;
    for (let page = start; page < end; page++) {
      const index = page % HUGE_PAGES;
      const state = leaf.states[index]!;
      const item = this.#items[page - this.#first]!;
      if (kindOf(state) === ENTRY.none) {
        item.canMove = this.#area.isAnonymous;
        continue;
      }
      const folio = this.#eligible(state, leaf.frames[index]! as PhysPage);
      if (folio === undefined) continue;
      if (folio.kind === "zero") {
        item.canMove = true;
        continue;
      }
      if (folio.isLarge) {
        if (folio !== this.#wanted) frames.hold(folio);
        if (!splitFolio(frames, folio)) {
          if (folio !== this.#wanted) frames.letGo(folio);
          return;
        }
        page--; // the entry is another one now: look again
        continue;
      }
      if (folio.locked && folio !== this.#wanted) continue;
      const isOwn = folio.anonVma !== undefined && folio.isExclusive(folio.frame);
      if (isOwn && folio.pins > 0) continue;
      this.#take(page, folio, (state & WRITABLE) !== 0, false);
      leaf.set(index, movingState(state, isOwn), folio.frame);
      folio.removeMap(folio.frame, this.#space.id);
    }
  }

  /** The folio of an entry that this migration may take; undefined if not. */
  #eligible(state: number, frame: PhysPage): Folio | undefined {
    const kind = kindOf(state);
    if (kind !== ENTRY.present && kind !== ENTRY.devicePrivate) return undefined;
    const folio = this.#space.frames.folio(frame);
    if (!folio) return undefined;
    const { from, owner } = this.#request;
    if (folio.region === undefined) return from === "system" ? folio : undefined;
    return from === "device" && folio.region.owner === owner ? folio : undefined;
  }

  #take(page: number, folio: Folio, writable: boolean, huge: boolean): void {
    if (folio !== this.#wanted) {
      this.#space.frames.hold(folio);
      folio.locked = true;
    }
    const item = this.#items[page - this.#first]!;
    item.source = folio;
    item.canMove = true;
    item.writable = writable;
    item.huge = huge;
  }

  /** Takes the pages from whoever else maps them; puts those back that somebody holds. */
  #unmapEverywhere(): void {
    const { frames } = this.#space;
    const back: Item[] = [];
    for (const item of this.#items) {
      const { source } = item;
      if (!source) continue;
      if (source.mapCount > 0) unmapToMove(source, false);
      if (source.mapCount > 0 || source.pins > 0 || source.held > 1) back.push(item);
    }
    for (const item of back) {
      const source = item.source!;
      item.canMove = false;
      item.source = undefined;
      restoreEntries(source, source);
      if (source === this.#wanted) continue;
      source.locked = false;
      frames.letGo(source);
    }
  }

  /** A place for what was not there. How many items besides it took. */
  #fillHole(index: number): number {
    const item = this.#items[index]!;
    if (!item.huge || item.destination!.isLarge) {
      this.#insert(index, this.#first + index);
      return 0;
    }
    item.huge = false;
    const last = Math.min(index + HUGE_PAGES, this.count);
    for (let i = index; i < last; i++) {
      this.#items[i]!.canMove = this.#items[i]!.destination !== undefined;
      if (this.#items[i]!.canMove) this.#insert(i, this.#first + i);
    }
    return last - index - 1;
  }

  #insert(index: number, page: number): void {
    const item = this.#items[index]!;
    const { table, frames, areas, id } = this.#space;
    const area = this.#area;
    const folio = item.destination!;
    item.canMove = false;
    if (!area.isAnonymous) return;
    table.makeMiddle(page);
    const kind = folio.region?.kind === "device-private" ? ENTRY.devicePrivate : ENTRY.present;
    const huge = table.huge(page);
    const isZero = huge !== undefined && frames.folio(huge.frame)?.kind === "zero";
    if (folio.isLarge) {
      if (table.slot(page) !== undefined && !isZero) return;
      prepareAnonVma(area, areas);
      adopt(folio, area, page);
      table.setSlot(page, hugeEntry(kind, area.has(AREA.write), folio.frame));
      folio.addEntireMap(id);
      folio.setAllExclusive(true);
      item.canMove = true;
      return;
    }
    if (huge && !isZero) return;
    if (huge) splitHugeEntry(this.#space, page);
    const leaf = table.makeLeaf(page);
    prepareAnonVma(area, areas);
    const was = leaf.states[page % HUGE_PAGES]!;
    const isZeroPage = mapsFrame(was) && frames.folio(table.frame(page))?.kind === "zero";
    if (was !== 0 && !isZeroPage) return;
    adopt(folio, area, page);
    mapOwn(this.#space, folio, page, kind | (area.has(AREA.write) ? WRITABLE : 0));
    item.canMove = true;
  }

  /** What was taken becomes its destination. How many items besides it took. */
  #movePages(index: number): number {
    const item = this.#items[index]!;
    let count = 1;
    if (item.canMove && item.huge && !item.destination!.isLarge) {
      this.#splitTaken(index);
      count = HUGE_PAGES;
    } else if (item.canMove && item.destination!.isLarge && !item.huge) item.canMove = false;
    for (let i = index; i < Math.min(index + count, this.count); i++) {
      const each = this.#items[i]!;
      const { source, destination } = each;
      if (!each.canMove || !source || !destination) {
        each.canMove = false;
        continue;
      }
      if (source.anonVma === undefined)
        each.canMove = false; // only what is a process's own can move
      else destination.become(source);
    }
    return count - 1;
  }

  /** The huge page that is out is to go to small ones. */
  #splitTaken(index: number): void {
    const item = this.#items[index]!;
    const folio = item.source!;
    splitHugeEntry(this.#space, this.#first + index);
    folio.held = 0;
    const parts = this.#space.frames.split(folio);
    const { writable } = item;
    parts.forEach((part, i) => {
      const each = this.#items[index + i]!;
      this.#space.frames.hold(part);
      part.locked = true;
      each.source = part;
      each.canMove = true;
      each.writable = writable;
      each.huge = false;
    });
  }
}

/**
 * Takes the pages of a range out of the table. The areas are held still.
 *
 * @throws DmaError ERR_DMA_USER_CALL (EINVAL) if the range is not in one area, or its pages cannot move at all
 */
export function* collect(space: Space, request: MigrationRequest): Steps<Migration> {
  const [start, end] = [request.start / PAGE_SIZE, request.end / PAGE_SIZE];
  const area = space.areas.at(start);
  const isRange = Number.isInteger(start) && Number.isInteger(end) && start < end;
  if (!isRange || !area || end > area.end || area.has(AREA.hugetlb | AREA.io))
    throw refused("migrate", "EINVAL", "the range is not in one area of pages that can move");
  const wanted = request.faultPage === undefined ? undefined : space.frames.folio(request.faultPage);
  const migration = new Migration(space, area, request, wanted);
  yield* migration.take();
  return migration;
}
