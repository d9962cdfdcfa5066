/**
 * `iommu:map` and `iommu:unmap`: events without a device, and how they are matched to the mappings that have one.
 *
 * Idea: a map waits as a piece until the `dma:*` event beside it takes it, or is claimed by a two-step link in flight. An
 * unmap was announced (`dma_free`, `dma_iova_destroy` come before it), or its pages belong to a mapping whose
 * `dma_unmap_*` comes after it: that one is marked torn, because another CPU may use the address again before the
 * event that names it. What nobody claims is unattributed, and the pages of two domains that use one address cannot
 * be told apart: no error is made of that.
 */
import { PAGE_SIZE } from "../../base/index.ts";
import { type Ledger, pagesOf } from "./ledger.ts";
import { Pieces } from "./pieces.ts";
import { TORN, TRANSLATED } from "./table.ts";

/** A two-step link whose `iommu:map` events are still to come on its CPU. */
export interface PendingLink {
  row: number;
  offset: number;
  length: number;
  /** Device addresses. */
  from: number;
  to: number;
  mapped: number;
}

/** What the last `iommu:unmap` of a CPU took, until the event after it says whose that was. */
interface PendingUnmap {
  page: number;
  pages: number;
  /** Ids of the mappings that begin there, newest first, with their rows. */
  rows: number[];
  ids: number[];
  /** A piece without a device lies there too. */
  shared: boolean;
  /** Nothing known lies there. */
  unseen: boolean;
}

interface CpuState {
  link: PendingLink | undefined;
  unmap: PendingUnmap | undefined;
  /** The unmap that an event on this CPU announced: its first page, or -1, and its device. */
  announced: number;
  announcer: number;
}

/** Unattributed ends whose beginnings are remembered. */
const RECENT = 8;

export class IommuEvents {
  readonly pieces: Pieces = new Pieces();
  /** Called when an `iommu:unmap` takes a piece that no event has named a device for, before it is removed. */
  onPieceEnded: ((piece: number) => void) | undefined;
  /** `iommu:map` events are in this trace. */
  seen = false;
  /** Mappings that no event names a device for. */
  ambiguous = 0;
  /** Unattributed: maps over a live piece, which only two domains explain. */
  overLive = 0;
  /** Unattributed mappings that ended: how many, and the longest, nanoseconds. */
  ended = 0;
  longestNs = 0;
  /** When the last of them began, nanoseconds. */
  readonly recentNs: number[] = [];
  readonly #ledger: Ledger;
  readonly #cpus: CpuState[] = [];
  #announcedCount = 0;
  #linkCount = 0;

  constructor(ledger: Ledger) {
    this.#ledger = ledger;
  }

  /** Answers the link that this map belongs to, if any: the caller counts it. */
  map(iova: number, length: number, phys: number): PendingLink | undefined {
    this.seen = true;
    if (length === 0) return undefined; // failed
    const { now, hooks } = this.#ledger;
    this.settle(now.cpu, -1);
    const page = Math.floor(iova / PAGE_SIZE);
    const pages = Math.ceil(length / PAGE_SIZE);
    for (const hook of hooks.iommuMapped) hook(page, pages);
    const link = this.#linkAt(iova, length);
    if (link) {
      link.mapped += length;
      return link;
    }
    if (this.pieces.firstAt(page) >= 0) this.overLive++;
    const piece = this.pieces.add(page, pages, phys, now.timeNs, now.cpu);
    this.pieces.pid[piece] = now.pid;
    this.pieces.task[piece] = now.task;
    this.pieces.type[piece] = now.type;
    return undefined;
  }

  unmap(iova: number, asked: number, done: number): void {
    const ledger = this.#ledger;
    const { now, hooks, table } = ledger;
    this.settle(now.cpu, -1);
    for (const hook of hooks.iommuUnmapped) hook(iova, asked, done);
    const page = Math.floor(iova / PAGE_SIZE);
    const announcer = this.#announced(page);
    if (announcer >= 0) {
      if (done > 0) for (const hook of hooks.tookBack) hook(announcer, page, Math.ceil(done / PAGE_SIZE));
      return;
    }
    if (done === 0) {
      if (asked > 0) this.cpu(now.cpu).unmap = { page, pages: 0, rows: [], ids: [], shared: false, unseen: true };
      return;
    }
    const pages = Math.ceil(done / PAGE_SIZE);
    const rows: number[] = [];
    const ids: number[] = [];
    for (let row = table.firstAt(page); row >= 0; row = table.nextAt(row, page)) {
      if (table.translated[row] !== TRANSLATED || (table.flags[row]! & TORN) !== 0) continue;
      if (pagesOf(table.iova[row]!, table.reserved[row]!) !== pages) continue;
      rows.push(row);
      ids.push(table.id[row]!);
    }
    const shared = this.pieces.firstAt(page) >= 0;
    if (rows.length === 0 && this.pieces.live > 0 && this.#takePieces(page, pages)) return;
    for (const row of rows) {
      ledger.untake(row);
      table.flags[row] = table.flags[row]! | TORN;
      table.endNs[row] = this.#ledger.now.timeNs; // unless an event says more: the device cannot reach it any more
      for (const hook of hooks.tookBack) hook(table.device[row]!, page, pages);
    }
    this.cpu(now.cpu).unmap = { page, pages, rows, ids, shared, unseen: rows.length === 0 };
  }

  /** The event at hand says that the next unmap of `page` is its own. */
  announce(page: number, device: number): void {
    const state = this.cpu(this.#ledger.now.cpu);
    if (state.announced < 0) this.#announcedCount++;
    state.announced = page;
    state.announcer = device;
  }

  /** The event at hand begins a link: the maps that follow on this CPU are its. */
  expect(link: PendingLink): void {
    const state = this.cpu(this.#ledger.now.cpu);
    if (!state.link) this.#linkCount++;
    state.link = link;
  }

  /** The link in flight of `row`, taken out; wherever it was begun. */
  takeLink(row: number): PendingLink | undefined {
    if (this.#linkCount === 0) return undefined;
    const own = this.cpu(this.#ledger.now.cpu);
    if (own.link?.row === row) return this.#take(own);
    for (const state of this.#cpus) if (state?.link?.row === row) return this.#take(state);
    return undefined;
  }

  #take(state: CpuState): PendingLink {
    const link = state.link!;
    state.link = undefined;
    this.#linkCount--;
    return link;
  }

  /** Takes the pieces that cover [iova, iova + length) for a mapping that has a device; the first one's memory, or -1. */
  claim(iova: number, length: number): number {
    const { pieces } = this;
    if (pieces.live === 0) return -1;
    const { cpu } = this.#ledger.now;
    const end = Math.ceil((iova + Math.max(1, length)) / PAGE_SIZE);
    let phys = -1;
    for (let page = Math.floor(iova / PAGE_SIZE); page < end; ) {
      let piece = pieces.firstAt(page);
      // Two domains at one address: the one that was mapped on this CPU.
      for (let other = piece; other >= 0; other = pieces.nextAt(other))
        if (pieces.cpu[other] === cpu) {
          piece = other;
          break;
        }
      if (piece < 0) break;
      if (phys < 0) phys = pieces.phys[piece]!;
      page += pieces.pages[piece]!;
      pieces.remove(piece);
    }
    return phys;
  }

  /**
   * The next event on `cpu` is there. With `page` -1 it does not name the mapping of the unmap before it: then that was
   * unattributed, if there is such a one. Otherwise the caller says whose it was by {@link named}. Answers that unmap.
   */
  settle(cpu: number, page: number): PendingUnmap | undefined {
    const state = this.cpu(cpu);
    const pending = state.unmap;
    if (!pending) return undefined;
    state.unmap = undefined;
    if (page < 0 && pending.shared) {
      // Nobody named it, and a piece without a device lies there: that one went.
      this.#untear(pending, -1);
      this.#takePieces(pending.page, pending.pages);
    } else if (page < 0 && pending.unseen && pending.pages > 0) {
      this.ambiguous++;
    }
    return pending;
  }

  /** The unmap was that of `row` (or of nobody: -1): the others that begin there are as they were. */
  #untear(pending: PendingUnmap, row: number): void {
    const { table } = this.#ledger;
    pending.rows.forEach((torn, i) => {
      if (torn === row || !table.isLive(torn) || table.id[torn] !== pending.ids[i]) return;
      table.flags[torn] = table.flags[torn]! & ~TORN;
      table.endNs[torn] = -1;
      this.#ledger.retake(torn);
    });
  }

  /** The unmap before the event at hand was for `row`; -1: for a mapping that is not known. */
  named(pending: PendingUnmap, row: number): void {
    this.#untear(pending, row);
  }

  /** The trace ends. */
  finish(): void {
    for (let cpu = 0; cpu < this.#cpus.length; cpu++) if (this.#cpus[cpu]) this.settle(cpu, -1);
  }

  cpu(cpu: number): CpuState {
    const known = this.#cpus[cpu];
    if (known) return known;
    const state: CpuState = { link: undefined, unmap: undefined, announced: -1, announcer: -1 };
    this.#cpus[cpu] = state;
    return state;
  }

  /** The device that announced an unmap at `page`; -1: none. */
  #announced(page: number): number {
    if (this.#announcedCount === 0) return -1;
    const own = this.cpu(this.#ledger.now.cpu);
    const found = own.announced === page ? own : this.#cpus.find((state) => state?.announced === page);
    if (!found) return -1;
    found.announced = -1;
    this.#announcedCount--;
    return found.announcer;
  }

  /** A link that starts inside a page is mapped from the start of that page on. */
  #linkAt(iova: number, length: number): PendingLink | undefined {
    if (this.#linkCount === 0) return undefined;
    const own = this.cpu(this.#ledger.now.cpu).link;
    if (own && own.from < iova + length && iova < own.to) return own;
    for (const state of this.#cpus) {
      const link = state?.link;
      if (link && link.from < iova + length && iova < link.to) return link;
    }
    return undefined;
  }

  /** One unmap of pieces without a device: one mapping that ends; false: there are none. The oldest goes first. */
  #takePieces(page: number, pages: number): boolean {
    const { pieces } = this;
    const before = pieces.live;
    if (pages > pieces.used * 2) {
      // A huge range over few pieces: look at those instead of at every page.
      for (let piece = 0; piece < pieces.used; piece++)
        if (pieces.isLive(piece) && pieces.page[piece]! >= page && pieces.page[piece]! < page + pages) {
          this.onPieceEnded?.(piece);
          pieces.remove(piece);
        }
      return this.#tookPieces(before);
    }
    for (let at = page; at < page + pages; ) {
      let piece = pieces.firstAt(at);
      if (piece < 0) {
        at++;
        continue;
      }
      for (let older = piece; older >= 0; older = pieces.nextAt(older)) piece = older;
      at += pieces.pages[piece]!;
      const startNs = pieces.startNs[piece]!;
      this.longestNs = Math.max(this.longestNs, this.#ledger.now.timeNs - startNs);
      this.recentNs[this.ended % RECENT] = startNs;
      this.onPieceEnded?.(piece);
      pieces.remove(piece);
    }
    return this.#tookPieces(before);
  }

  #tookPieces(before: number): boolean {
    if (this.pieces.live === before) return false;
    this.ambiguous++;
    this.ended++;
    return true;
  }
}
