/**
 * `iommu:map` and `iommu:unmap`: events without a device, and how they are matched to the mappings that have one.
 *
 * Idea: a map waits (unattributed.ts) until the `dma:*` event beside it claims it, or is claimed by a two-step link in flight. An
 * unmap was announced (`dma_free`, `dma_unmap_sg`, `dma_iova_destroy` come before it), or its pages belong to a mapping
 * whose `dma_unmap_*` comes after it. Until that comes, every mapping that it fits, in whatever domain, is marked as gone, because
 * another CPU may use the address again; when it comes, the others are put back. If it never comes, what went is the run that
 * nobody named. The smallest piece that the IOMMU maps, 4, 16 or 64 KiB, is learnt from the addresses.
 */
import { PAGE_SIZE } from "../../base/index.ts";
import { AnnouncedUnmaps } from "./announced-unmaps.ts";
import type { Place } from "./history.ts";
import type { Ledger } from "./ledger.ts";
import { LinksInFlight, type PendingLink } from "./links-in-flight.ts";
import { NONE, PendingUnmap } from "./pending-unmap.ts";
import { APART, CONTESTED, NO_DEVICE, NO_DIRECTION, PAGES_GONE, TRANSLATED, TWO_STEP, UNATTRIBUTED } from "./table.ts";
import { Unattributed } from "./unattributed.ts";

interface CpuState {
  /** The last unmaps, as a ring. */
  readonly unmaps: readonly PendingUnmap[];
  next: number;
  /** The last one, if no other event has come since. */
  fresh: PendingUnmap | undefined;
}

/** Unmaps of one CPU that may be named late: an interrupt unmaps between an unmap and its name. */
const UNMAPS = 4;
/** The largest page of any kernel; smaller pieces than its page no kernel maps. */
const LARGEST_GRANULE = 65_536;
/** Unattributed ends whose beginnings are remembered. */
const RECENT = 8;

export class IommuMatcher {
  /** Maps without a device. */
  readonly waiting: Unattributed = new Unattributed();
  /** `iommu:map` events are in this trace. */
  mapsSeen = false;
  /** `dma_map_*` events are in this trace: what one of them maps is named. */
  mapsNamed = false;
  /** Two domains use one address, and the events do not tell them apart. */
  sharesAddresses = false;
  /** Unattributed mappings that ended: how many, and the longest, nanoseconds. */
  ended = 0;
  longestNs = 0;
  /** When those of them that ended last began and ended, nanoseconds; in no order: what nobody names is settled late. */
  readonly recent: { startNs: number; endNs: number }[] = [];
  readonly #ledger: Ledger;
  readonly #cpus: CpuState[] = [];
  readonly #announced = new AnnouncedUnmaps();
  readonly #links = new LinksInFlight();
  #claimed: number[] = [];

  constructor(ledger: Ledger) {
    this.#ledger = ledger;
  }

  /** Answers the link that this map belongs to, if any. */
  map(iova: number, length: number, phys: number): PendingLink | undefined {
    this.mapsSeen = true;
    if (length === 0) return undefined; // failed
    const ledger = this.#ledger;
    const { now } = ledger;
    this.#learn(iova, length);
    this.other(now.cpu);
    const page = Math.floor(iova / PAGE_SIZE);
    const pages = Math.ceil(length / PAGE_SIZE);
    for (const hook of ledger.hooks.iommuMapped) hook(page, pages);
    const link = this.#links.at(iova, length, now.cpu, now.pid);
    if (link) {
      link.mapped += length;
      return link;
    }
    this.waiting.add(page, pages, phys, now, ledger.step());
    if (this.waiting.isFull) {
      ledger.evicted++;
      this.#show(this.waiting.takeOldest(), -1, -1);
    }
    return undefined;
  }

  unmap(iova: number, asked: number, done: number): void {
    const ledger = this.#ledger;
    const { now, hooks, table, counts } = ledger;
    for (const hook of hooks.iommuUnmapped) hook(iova, asked, done);
    if (done > 0) {
      counts.unmapEvents++;
      this.#learn(iova, done);
    }
    const page = Math.floor(iova / PAGE_SIZE);
    const pages = Math.ceil(done / PAGE_SIZE);
    if (this.#isAnnounced(page, pages)) {
      this.other(now.cpu);
      return;
    }
    const state = this.cpu(now.cpu);
    const unmap = state.unmaps[state.next]!;
    if (unmap.isOpen) this.#settle(unmap);
    state.fresh = unmap;
    unmap.page = page;
    unmap.pages = pages;
    unmap.count = 0;
    unmap.isOpen = done > 0;
    if (done === 0) return;
    unmap.order = ledger.step();
    unmap.timeNs = now.timeNs;
    unmap.cpu = now.cpu;
    unmap.pid = now.pid;
    unmap.task = now.task;
    unmap.type = now.type;
    unmap.site = now.site;
    state.next = (state.next + 1) % UNMAPS;
    for (let row = table.firstNear(iova); row >= 0; row = table.nextNear(row)) {
      if (!this.#fits(row, page, pages)) continue;
      unmap.rows[unmap.count] = row;
      unmap.ids[unmap.count++] = table.id[row]!;
    }
    this.#speakFor(unmap);
    const contested = unmap.isContested ? CONTESTED : 0;
    for (let i = 0; i < unmap.count; i++) {
      const row = unmap.rows[i]!;
      table.flags[row] = table.flags[row]! | contested;
      if ((table.flags[row]! & PAGES_GONE) !== 0) continue;
      // Entries of a list that lie apart are unmapped one by one: the others follow.
      if ((table.flags[row]! & APART) !== 0)
        ledger.eachExtent(row, (other, more) => {
          if (other !== page) this.announce(other, more, table.device[row]!, true);
        });
      ledger.pagesGone(row);
      for (const hook of hooks.tookBack) hook(table.device[row]!, page, pages);
    }
  }

  /** Whether an unmap of [page, page + pages) may be that of `row`. */
  #fits(row: number, page: number, pages: number): boolean {
    const { table } = this.#ledger;
    if (table.reached[row] !== TRANSLATED) return false;
    if ((table.flags[row]! & PAGES_GONE) !== 0 && (table.flags[row]! & CONTESTED) === 0) return false;
    if (table.kind[row] !== TWO_STEP) return table.page[row] === page && table.pages[row] === pages;
    const iova = table.iova[row]!;
    return this.#ledger.firstPage(iova) === page && this.#ledger.pagesOf(iova, table.linkedEnd[row]!) === pages;
  }

  /** Another event than an unmap and its name has come on `cpu`. */
  other(cpu: number): void {
    const state = this.#cpus[cpu];
    if (state) state.fresh = undefined;
  }

  /** The unmap before the event at hand on its CPU, if nothing came in between. */
  lastUnmap(): PendingUnmap | undefined {
    return this.cpu(this.#ledger.now.cpu).fresh;
  }

  /** The event at hand names `row`: the unmap of its pages was that of `row`, and of no other that it fits. */
  named(row: number): void {
    const { now, table } = this.#ledger;
    const page = this.#ledger.firstPage(table.iova[row]!);
    const own = this.#openAt(this.cpu(now.cpu), page);
    if (own) this.resolve(own, row);
    else if ((table.flags[row]! & PAGES_GONE) !== 0) {
      // The task went to another CPU in between.
      const unmap = this.#openWith(row);
      if (unmap) this.resolve(unmap, row);
    }
  }

  /** An unmap that `row` may be the one of, and that nobody has named; of any CPU. */
  #openWith(row: number): PendingUnmap | undefined {
    const id = this.#ledger.table.id[row]!;
    for (const state of this.#cpus)
      for (const unmap of state?.unmaps ?? NO_UNMAPS) if (unmap.isOpen && unmap.has(row, id)) return unmap;
    return undefined;
  }

  /** The event at hand names a mapping at `page` that was not seen to begin: the unmap of its pages was that one's. */
  namedUnknown(page: number): void {
    const unmap = this.#openAt(this.cpu(this.#ledger.now.cpu), page);
    if (!unmap) return;
    // Where maps have names, one without a name is another's. Where they have none, it may well be this one's.
    if (unmap.pieces.length > 0 && !this.mapsNamed) return;
    this.#ledger.counts.unmapsOfUnknown++;
    this.resolve(unmap, -1);
  }

  /** `unmap` was that of `row`, or of a mapping that is not known (-1): whatever else it fits is as it was. */
  resolve(unmap: PendingUnmap, row: number): void {
    unmap.isOpen = false;
    this.#restore(unmap, row);
    this.waiting.giveBack(unmap.pieces, unmap.order);
  }

  #speakFor(unmap: PendingUnmap): void {
    const { waiting } = this;
    unmap.pieces = waiting.live === 0 ? NONE : waiting.speakFor(unmap.page, unmap.pages, unmap.cpu, unmap.order);
  }

  /** The latest open unmap of `page` on a CPU. */
  #openAt(state: CpuState, page: number): PendingUnmap | undefined {
    for (let back = 1; back <= UNMAPS; back++) {
      const unmap = state.unmaps[(state.next + UNMAPS - back) % UNMAPS]!;
      if (unmap.isOpen && unmap.page === page) return unmap;
    }
    return undefined;
  }

  /** Nobody names this unmap any more. */
  #settle(unmap: PendingUnmap): void {
    const { counts, table } = this.#ledger;
    unmap.isOpen = false;
    if (!this.waiting.areSpokenFor(unmap.pieces, unmap.order)) {
      // One of them was named since: it was not theirs.
      this.waiting.giveBack(unmap.pieces, unmap.order);
      this.#speakFor(unmap);
    }
    if (unmap.pieces.length > 0) {
      // It was that of maps which nobody names either.
      this.#restore(unmap, -1);
      this.waiting.takeAll(unmap.pieces);
      this.#show(unmap.pieces, unmap.timeNs, unmap.order);
      return;
    }
    const left: number[] = [];
    for (let i = 0; i < unmap.count; i++) {
      const row = unmap.rows[i]!;
      if (table.isLive(row) && table.id[row] === unmap.ids[i]) left.push(row);
    }
    if (left.length > 1) {
      // One of them went, the oldest most likely that no other unmap took.
      const gone = left.findLast((row) => (table.flags[row]! & CONTESTED) !== 0) ?? left.at(-1)!;
      table.flags[gone] = table.flags[gone]! & ~CONTESTED;
      this.#restore(unmap, gone);
    }
    if (unmap.count > 0) return;
    // Told as if it were the event at hand again.
    const now = this.#ledger.now.copy();
    this.#ledger.now.set(unmap);
    counts.unmapsOfUnknown++;
    this.#ledger.unmatched(
      this.#ledger.end(UNATTRIBUTED, NO_DEVICE, unmap.page * PAGE_SIZE, unmap.pages * PAGE_SIZE, -1),
      { why: "unknown-start" },
    );
    this.#ledger.now.set(now);
  }

  /** Of the pieces that wait: the unmap that took each, most likely, and that nobody has named so far. */
  takenBy(): ReadonlyMap<number, Place> {
    const taken = new Map<number, Place>();
    for (const state of this.#cpus)
      for (const unmap of state?.unmaps ?? NO_UNMAPS)
        if (unmap.isOpen && this.waiting.areSpokenFor(unmap.pieces, unmap.order))
          for (const piece of unmap.pieces) taken.set(piece, unmap);
    return taken;
  }

  /** Puts back what `unmap` marked as gone, but for `row`. */
  #restore(unmap: PendingUnmap, row: number): void {
    const { table } = this.#ledger;
    for (let i = 0; i < unmap.count; i++) {
      const gone = unmap.rows[i]!;
      if (gone === row || !table.isLive(gone) || table.id[gone] !== unmap.ids[i]) continue;
      const flags = table.flags[gone]!;
      // Given to another unmap already, or it may still be another's.
      if ((flags & PAGES_GONE) === 0 || (unmap.isContested && (flags & CONTESTED) === 0) || this.#openWith(gone))
        continue;
      this.#ledger.restorePages(gone);
    }
  }

  /** Shows `pieces` as one mapping without a device. `endNs` -1: it is live. Gives the pieces back. */
  #show(pieces: readonly number[], endNs: number, endOrder: number): void {
    const ledger = this.#ledger;
    const { waiting } = this;
    let first = pieces[0]!;
    for (const piece of pieces) {
      if (waiting.order[piece]! < waiting.order[first]!) first = piece;
      if (waiting.overLive[piece] === 0) continue;
      ledger.counts.mapsOverLive++;
      this.sharesAddresses = true;
    }
    if (endNs >= 0) {
      const startNs = waiting.startNs[first]!;
      this.longestNs = Math.max(this.longestNs, endNs - startNs);
      this.ended++;
      this.#remember(startNs, endNs);
    }
    if (ledger.isShown) ledger.showUnattributed(this.#rowOf(pieces, first, endNs, endOrder));
    else ledger.countUnattributed(endNs < 0);
    for (const piece of pieces) waiting.release(piece);
  }

  /** Keeps the ends that are the latest. */
  #remember(startNs: number, endNs: number): void {
    const { recent } = this;
    if (recent.length < RECENT) {
      recent.push({ startNs, endNs });
      return;
    }
    let first = recent[0]!;
    for (const one of recent) if (one.endNs < first.endNs) first = one;
    if (first.endNs >= endNs) return;
    first.startNs = startNs;
    first.endNs = endNs;
  }

  /** A row of the table for `pieces`, of which `first` was mapped first. */
  #rowOf(pieces: readonly number[], first: number, endNs: number, endOrder: number): number {
    const { table } = this.#ledger;
    const { waiting } = this;
    const { page, pages, phys } = waiting;
    const lowest = pieces[0]!;
    let all = 0;
    for (const piece of pieces) all += pages[piece]!;
    const iova = page[lowest]! * PAGE_SIZE;
    const row = this.#ledger.begin(UNATTRIBUTED, NO_DEVICE, iova, all * PAGE_SIZE, NO_DIRECTION);
    table.reached[row] = TRANSLATED;
    table.phys[row] = phys[lowest]!;
    table.page[row] = page[lowest]!;
    table.pages[row] = all;
    table.startNs[row] = waiting.startNs[first]!;
    table.cpu[row] = waiting.cpu[first]!;
    table.pid[row] = waiting.pid[first]!;
    table.task[row] = waiting.task[first]!;
    table.type[row] = waiting.type[first]!;
    table.site[row] = waiting.site[first]!;
    table.id[row] = waiting.order[first]!;
    table.segments[row] = pieces.length;
    table.endNs[row] = endNs;
    table.endOrder[row] = endOrder;
    if (pieces.length > 1)
      for (const piece of pieces)
        table.addPiece(row, page[piece]! * PAGE_SIZE, phys[piece]!, pages[piece]! * PAGE_SIZE);
    return row;
  }

  /**
   * The event at hand says that [page, page + pages) is going to be unmapped for it, at once or in parts. `known`: what it unmaps was
   * seen to be mapped.
   */
  announce(page: number, pages: number, device: number, known: boolean): void {
    this.#announced.add(this.#ledger.now.cpu, page, pages, device, known);
  }

  /** The event at hand begins a link: the maps that follow on this CPU are its. */
  expect(link: PendingLink): void {
    this.#links.begin(this.#ledger.now.cpu, link);
  }

  /** The link in flight of `row`, taken out; wherever it was begun. */
  takeLink(row: number): PendingLink | undefined {
    return this.#links.take(row, this.#ledger.now.cpu);
  }

  /**
   * Takes the maps that cover [iova, iova + length) for the mapping that the event at hand names. `phys`: of its first byte; -1: not
   * known. Where that is the address itself, only a map of that very memory is meant. Valid until {@link releaseClaimed}.
   */
  claim(iova: number, length: number, phys: number): readonly number[] {
    const { waiting } = this;
    const claimed = this.#claimed;
    if (waiting.live === 0) return claimed;
    const { cpu, pid } = this.#ledger.now;
    const from = this.#ledger.firstPage(iova);
    const to = Math.ceil((iova + Math.max(1, length)) / PAGE_SIZE);
    for (let page = from; page < to; ) {
      const memory = phys < 0 ? -1 : phys - iova + page * PAGE_SIZE;
      const piece = waiting.mappedBy(page, memory, cpu, pid);
      if (piece < 0 || (phys === iova && waiting.phys[piece] !== memory)) break;
      page += waiting.pages[piece]!;
      waiting.take(piece);
      claimed.push(piece);
    }
    return claimed;
  }

  /** Calls `visit` with what of the memory that was just claimed lies in [iova, iova + length). */
  eachClaimed(iova: number, length: number, visit: (iova: number, phys: number, length: number) => void): void {
    const { page, pages, phys } = this.waiting;
    for (const piece of this.#claimed) {
      const start = page[piece]! * PAGE_SIZE;
      const from = Math.max(iova, start);
      const to = Math.min(iova + length, start + pages[piece]! * PAGE_SIZE);
      if (from < to) visit(from, phys[piece]! + from - start, to - from);
    }
  }

  releaseClaimed(): void {
    if (this.#claimed.length === 0) return;
    for (const piece of this.#claimed) this.waiting.release(piece);
    this.#claimed.length = 0;
  }

  /** Takes what this CPU mapped since `order`, for the list at hand, of which the event does not show all. Like {@link claim}. */
  claimSince(order: number): readonly number[] {
    const claimed = this.#claimed;
    for (const piece of this.waiting.since(order, this.#ledger.now.cpu)) {
      this.waiting.take(piece);
      claimed.push(piece);
    }
    return claimed;
  }

  /** The trace ends: what is open is settled, what waits is live. */
  finish(): void {
    for (const state of this.#cpus)
      for (const unmap of state?.unmaps ?? NO_UNMAPS) if (unmap.isOpen) this.#settle(unmap);
  }

  /** After the rules have seen what waits. */
  showWaiting(): void {
    for (const run of this.waiting.runs()) {
      this.waiting.takeAll(run);
      this.#show(run, -1, -1);
    }
  }

  cpu(cpu: number): CpuState {
    const known = this.#cpus[cpu];
    if (known) return known;
    const unmaps = Array.from({ length: UNMAPS }, () => new PendingUnmap());
    const state: CpuState = { unmaps, next: 0, fresh: undefined };
    this.#cpus[cpu] = state;
    return state;
  }

  /** Whether an event before it said whose unmap this is. */
  #isAnnounced(page: number, pages: number): boolean {
    const { now, counts, hooks } = this.#ledger;
    const found = this.#announced.take(now.cpu, page, pages);
    if (!found) return false;
    if (pages === 0) return true;
    if (!found.known) counts.unmapsOfUnknown++;
    for (const hook of hooks.tookBack) hook(found.device, page, pages);
    return true;
  }

  /** An address or a length that is no multiple of the smallest piece so far shows that it is smaller. */
  #learn(iova: number, length: number): void {
    const { table } = this.#ledger;
    const bits = (iova % LARGEST_GRANULE) | (length % LARGEST_GRANULE);
    const granule = Math.max(PAGE_SIZE, bits === 0 ? LARGEST_GRANULE : bits & -bits);
    if (granule < table.granule || !this.#learnt) table.granule = granule;
    this.#learnt = true;
  }
  #learnt = false;
}

const NO_UNMAPS: readonly PendingUnmap[] = [];
