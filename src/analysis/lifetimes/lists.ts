/**
 * Scatterlists: from `dma_map_sg` and `dma_unmap_sg` to lifetimes.
 *
 * Idea: the event shows where the entries lie for the device, at most 128 of them; the `iommu:map` events before it show which memory
 * lies there. Cut along both, a list is its pieces of memory, exactly. Entries of a trusted device lie one behind the other;
 * those of an untrusted one, or without an IOMMU, lie apart, and each is unmapped by itself. `dma_unmap_sg` names a list
 * by its memory: the one with the same first byte, of several the one with as many entries.
 * Not known: what entries beyond the 128th hold where no `iommu:map` events are recorded; they are counted.
 */
import { PAGE_SIZE } from "../../base/index.ts";
import type { IommuMatcher } from "./iommu-matcher.ts";
import type { Ledger } from "./ledger.ts";
import { APART, DIRECT, FROM_BEFORE, REMAPPED, SCATTERLIST, TRANSLATED } from "./table.ts";
import { LIST_SPACE, type UnmatchedEnds } from "./unmatched-ends.ts";
import type { SyncMiss } from "./watcher.ts";

/** A `dma_map_sg`, as far as the event shows it. */
export interface ListEvent {
  /** Bytes in memory, of the entries that the driver gave; device addresses and lengths, of those that the kernel made of them. */
  readonly phys: readonly number[];
  readonly iovas: readonly number[];
  readonly lengths: readonly number[];
  /** How many of both there are in all. */
  readonly given: number;
  readonly made: number;
}

/** Entries that an event shows; kernels before 6.13 show all. */
const MOST_SHOWN = 128;
/** Whether an event that shows `shown` entries may be of a list of `all`. */
export const hasEntries = (all: number, shown: number): boolean =>
  shown === all || (shown === MOST_SHOWN && all > shown);
/** All ones, and what rounds to it: an entry that has no address. */
const NO_ADDRESS = 2 ** 64 - 2048;
/** Lists of the same memory that are looked at for the one that ends. */
const MOST_AT_ONCE = 256;

export class Lists {
  readonly #ledger: Ledger;
  readonly #iommu: IommuMatcher;
  readonly #ends: UnmatchedEnds;

  constructor(ledger: Ledger, iommu: IommuMatcher, ends: UnmatchedEnds) {
    this.#ledger = ledger;
    this.#iommu = iommu;
    this.#ends = ends;
  }

  /** `dma_map_sg`. */
  map(device: number, direction: number, event: ListEvent): void {
    const ledger = this.#ledger;
    const { table } = ledger;
    const { iovas, phys, given, made } = event;
    this.#iommu.other(ledger.now.cpu);
    this.#iommu.mapsNamed = true;
    const first = iovas[0];
    if (first === undefined) return;
    const row = ledger.begin(SCATTERLIST, device, first, 0, direction, phys[0] ?? -1);
    table.segments[row] = 0;
    table.entries[row] = given;
    table.phys[row] = phys[0] ?? -1;
    const shownByMaps = this.#translated(row, event);
    if (shownByMaps < 0) this.#untranslated(row, event);
    const hidden = shownByMaps > 0 ? 0 : Math.max(0, made - iovas.length);
    table.segments[row] = table.segments[row]! + hidden;
    ledger.opened(row);
    if (hidden > 0) for (const hook of ledger.hooks.truncated) hook(row, iovas.length, made);
  }

  /** `dma_unmap_sg`, which names the memory: before its `iommu:unmap`. */
  unmap(device: number, direction: number, phys: readonly number[]): void {
    const ledger = this.#ledger;
    const { table } = ledger;
    this.#iommu.other(ledger.now.cpu);
    const first = phys[0] ?? -1;
    const row = this.#find(device, first, phys.length);
    const entries = phys.length;
    if (row >= 0) {
      if (table.reached[row] === TRANSLATED)
        ledger.eachExtent(row, (page, pages) => this.#iommu.announce(page, pages, device, true));
      else if ((table.flags[row]! & FROM_BEFORE) !== 0)
        this.#iommu.announce(
          ledger.firstPage(table.iova[row]!),
          ledger.pagesOf(table.iova[row]!, table.length[row]!),
          device,
          false,
        );
      ledger.close(row, ledger.end(SCATTERLIST, device, table.iova[row]!, -1, direction, entries));
      ledger.history.ended(device + LIST_SPACE, first, 0, undefined, ledger.now);
      return;
    }
    const unknown = { why: ledger.startListed ? "not-at-start" : "unknown-start" } as const;
    const reason = this.#ends.earlier(device + LIST_SPACE, first) ?? unknown;
    ledger.unmatched(ledger.end(SCATTERLIST, device, first, -1, direction), reason);
  }

  /** `dma_sync_sg_*`, entry by entry. Those that were joined to the one before have no address of their own. */
  sync(device: number, direction: number, { iovas, lengths }: ListEvent): void {
    const { hooks, startListed } = this.#ledger;
    const row = this.#listAt(device, iovas[0] ?? -1);
    for (const [i, iova] of iovas.entries()) {
      const length = lengths[i] ?? 0;
      if (length === 0 || iova >= NO_ADDRESS) continue;
      if (row >= 0 && this.#holds(row, iova, length)) {
        // One finding a list is enough.
        if (i === 0) for (const hook of hooks.syncedData) hook(row, direction, iova, length);
        continue;
      }
      const miss: SyncMiss = row >= 0 ? { why: "beyond", row } : { why: startListed ? "not-at-start" : "not-live" };
      for (const hook of hooks.syncMissed) hook(device, iova, length, miss);
      return;
    }
  }

  /** The newest live list of `device` whose first entry lies at `iova`; -1: none. */
  #listAt(device: number, iova: number): number {
    const { table } = this.#ledger;
    let left = MOST_AT_ONCE;
    for (let row = table.firstOf(device, iova); row >= 0 && left > 0; row = table.nextOf(row), left--)
      if (table.kind[row] === SCATTERLIST) return row;
    return -1;
  }

  /** Whether [iova, iova + length) lies in one run of the entries of list `row`. Entries that the event of its map did not show may hold it. */
  #holds(row: number, iova: number, length: number): boolean {
    const { table } = this.#ledger;
    if (table.entries[row]! > MOST_SHOWN) return true;
    if ((table.flags[row]! & APART) === 0)
      return iova >= table.iova[row]! && iova + length <= table.iova[row]! + table.reserved[row]!;
    let [from, to] = [-1, -1];
    let isHeld = false;
    table.eachPiece(row, (at, _, bytes) => {
      if (at !== to) from = at;
      to = at + bytes;
      if (iova >= from && iova + length <= to) isHeld = true;
    });
    return isHeld;
  }

  /** The newest list of `device` that begins at `phys`, if there is one with as many entries, else any. */
  #find(device: number, phys: number, entries: number): number {
    const { table } = this.#ledger;
    let newest = -1;
    let left = MOST_AT_ONCE;
    for (let row = table.firstWith(device, phys); row >= 0 && left > 0; row = table.nextWith(row), left--) {
      if (table.kind[row] !== SCATTERLIST) continue;
      if (hasEntries(table.entries[row]!, entries)) return row;
      if (newest < 0) newest = row;
    }
    return newest;
  }

  /** Its pieces by the `iommu:map` events before it: how many show what the event does not; -1: there are no such events. */
  #translated(row: number, { iovas, lengths, phys, given, made }: ListEvent): number {
    const { table } = this.#ledger;
    const { waiting } = this.#iommu;
    /** What was claimed last: it may reach into the next entry. */
    const last = { from: -1, to: -1, phys: 0 };
    /** All that was claimed. */
    const place = { from: -1, to: -1, pages: 0, apart: false, since: -1 };
    const claimed = (piece: number): void => {
      const from = waiting.page[piece]! * PAGE_SIZE;
      const bytes = waiting.pages[piece]! * PAGE_SIZE;
      if (place.from < 0) {
        place.from = from;
        place.since = waiting.order[piece]!;
      } else if (from !== place.to) place.apart = true;
      place.to = from + bytes;
      if (!place.apart) place.pages += waiting.pages[piece]!;
      [last.from, last.to, last.phys] = [from, from + bytes, waiting.phys[piece]!];
    };
    for (const [i, iova] of iovas.entries()) {
      const end = iova + (lengths[i] ?? 0);
      let at = iova;
      if (at >= last.from && at < last.to) {
        this.#extend(row, at, last.phys + at - last.from, Math.min(end, last.to) - at);
        at = Math.min(end, last.to);
      }
      if (at >= end) continue;
      const memory = i === 0 || given === made ? (phys[i] ?? -1) : -1;
      for (const piece of this.#iommu.claim(at, end - at, memory)) {
        claimed(piece);
        const to = Math.min(end, last.to);
        this.#add(row, at, last.phys + at - last.from, to - at);
        at = to;
      }
      this.#iommu.releaseClaimed();
      if (place.from < 0) return -1;
      if (at < end) this.#add(row, at, -1, end - at);
    }
    let more = 0;
    if (made > iovas.length) {
      for (const piece of this.#iommu.claimSince(place.since)) {
        claimed(piece);
        this.#add(row, last.from, last.phys, last.to - last.from);
        more++;
      }
      this.#iommu.releaseClaimed();
    }
    table.reached[row] = TRANSLATED;
    table.page[row] = place.from / PAGE_SIZE;
    table.pages[row] = place.pages;
    table.reserved[row] = place.apart ? table.length[row]! : place.to - iovas[0]!;
    if (place.apart) table.flags[row] = table.flags[row]! | APART;
    return more;
  }

  /** Its pieces by the event alone. */
  #untranslated(row: number, { iovas, lengths, phys, given, made }: ListEvent): void {
    const { table } = this.#ledger;
    let direct = true;
    for (const [i, iova] of iovas.entries()) {
      const memory = i === 0 || given === made ? (phys[i] ?? -1) : -1;
      if (memory !== iova) direct = false;
      this.#add(row, iova, memory, lengths[i] ?? 0);
    }
    table.reached[row] = direct ? DIRECT : REMAPPED;
    table.reserved[row] = table.length[row]!;
    table.flags[row] = table.flags[row]! | APART;
  }

  #add(row: number, iova: number, phys: number, length: number): void {
    const { table } = this.#ledger;
    table.addPiece(row, iova, phys, length);
    table.segments[row] = table.segments[row]! + 1;
    table.length[row] = table.length[row]! + length;
  }

  /** More of the last piece, which the device sees as a second one. */
  #extend(row: number, iova: number, phys: number, length: number): void {
    const { table } = this.#ledger;
    const { pieces } = table;
    const at = table.lastSegment[row]!;
    if (at < 0 || pieces.iova[at]! + pieces.length[at]! !== iova || pieces.phys[at]! + pieces.length[at]! !== phys) {
      this.#add(row, iova, phys, length);
      return;
    }
    pieces.length[at] = pieces.length[at]! + length;
    table.length[row] = table.length[row]! + length;
  }
}
