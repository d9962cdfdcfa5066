/**
 * Two-step ranges: from the probe events on `dma_iova_*` to lifetimes.
 *
 * Idea: a range is found by the address of its state. Probes fire when a function is entered, so a link may yet fail: it
 * counts when its `iommu:map` events have come, or, in a trace without those, when the range goes on to be used.
 * Which bytes are linked is one number while links come in order, and a set of pages for those that do not.
 * Specified by: behaviour of the two-step API in Linux 7.2; `dma_iova_try_alloc` is recorded at its return.
 */
import { PAGE_SIZE, pagesTouched } from "../../base/index.ts";
import type { IommuMatcher } from "./iommu-matcher.ts";
import type { Ledger } from "./ledger.ts";
import type { PendingLink } from "./links-in-flight.ts";
import { PageSet } from "./page-set.ts";
import { FROM_BEFORE, NO_DIRECTION, PIECES_ENTERED, TRANSLATED, TWO_STEP } from "./table.ts";
import { STATE_SPACE, type UnmatchedEnds } from "./unmatched-ends.ts";

/** Pages of the longest link that is followed, 4 GiB: a damaged trace may say any length. */
const MOST_PAGES = 2 ** 20;

export class Ranges {
  readonly #ledger: Ledger;
  readonly #iommu: IommuMatcher;
  readonly #ends: UnmatchedEnds;
  /** Linked pages that do not follow on the linked prefix, by row: pages of the device's addresses. */
  readonly #islands = new PageSet();
  /** Rows that have some, and the offset at which their last link ends: it need not be at the end of a page. */
  readonly #scattered = new Map<number, number>();
  /** Ranges are seen to end in this trace: one whose state is used again was abandoned. */
  #endsSeen = false;

  constructor(ledger: Ledger, iommu: IommuMatcher, ends: UnmatchedEnds) {
    this.#ledger = ledger;
    this.#iommu = iommu;
    this.#ends = ends;
  }

  /** `dma_iova_try_alloc` that succeeded. */
  reserve(device: number, state: number, address: number, length: number): void {
    const ledger = this.#ledger;
    const { table } = ledger;
    this.#iommu.other(ledger.now.cpu);
    const old = this.#find(device, state);
    if (old >= 0) this.#abandon(old);
    const row = ledger.begin(TWO_STEP, device, address, 0, NO_DIRECTION, state);
    table.reserved[row] = length;
    table.segments[row] = 0;
    table.reached[row] = TRANSLATED;
    table.page[row] = Math.floor(address / PAGE_SIZE);
    table.pages[row] = pagesTouched(address, length);
    ledger.opened(row);
  }

  link(
    device: number,
    state: number,
    address: number,
    offset: number,
    length: number,
    phys: number,
    direction: number,
  ): void {
    const ledger = this.#ledger;
    const { table, now } = ledger;
    this.#iommu.other(now.cpu);
    const found = this.#find(device, state);
    const row = found >= 0 ? found : this.#fromBefore(device, state, address);
    this.#confirm(row);
    table.direction[row] = direction;
    if (table.phys[row]! < 0) table.phys[row] = phys;
    for (const hook of ledger.hooks.linking) hook(row, offset, length, phys);
    const from = table.iova[row]! + offset;
    this.#iommu.expect({ row, pid: now.pid, offset, length, phys, from, to: from + length, mapped: 0 });
  }

  sync(device: number, state: number, offset: number, length: number): void {
    const ledger = this.#ledger;
    this.#iommu.other(ledger.now.cpu);
    const row = this.#find(device, state);
    if (row < 0) return; // of before the recording
    this.#confirm(row);
    ledger.table.unsynced[row] = 0;
    for (const hook of ledger.hooks.synced) hook(row, offset, length);
  }

  unlink(device: number, state: number, offset: number, length: number): void {
    const ledger = this.#ledger;
    const { table } = ledger;
    this.#iommu.other(ledger.now.cpu);
    const row = this.#find(device, state);
    if (row < 0) return;
    this.#confirm(row);
    const known = (table.flags[row]! & FROM_BEFORE) === 0;
    const hole = known ? this.#hole(row, offset, offset + length) : -1;
    for (const hook of ledger.hooks.unlinking) hook(row, offset, length, hole);
    this.#remove(row, offset, hole >= 0 ? hole : offset + length);
    const from = table.iova[row]! + offset;
    this.#iommu.announce(ledger.firstPage(from), ledger.pagesOf(from, length), device, true);
  }

  /** `dma_iova_destroy`, or with `mapped` 0 `dma_iova_free`. */
  destroy(device: number, state: number, address: number, mapped: number, direction: number): void {
    const ledger = this.#ledger;
    const { table, history, now } = ledger;
    this.#endsSeen = true;
    this.#iommu.other(now.cpu);
    const row = this.#find(device, state);
    if (mapped > 0) this.#iommu.announce(ledger.firstPage(address), ledger.pagesOf(address, mapped), device, row >= 0);
    const end = ledger.end(TWO_STEP, device, address, mapped, direction);
    if (row < 0) {
      const reason = this.#ends.earlier(device + STATE_SPACE, state) ?? ({ why: "unknown-start" } as const);
      ledger.unmatched(end, reason);
      history.ended(device + STATE_SPACE, state, mapped, undefined, now);
      return;
    }
    this.#confirm(row);
    if ((table.flags[row]! & FROM_BEFORE) === 0) {
      const hole = this.#hole(row, 0, mapped);
      const beyond = this.#beyond(row, mapped);
      for (const hook of ledger.hooks.destroying) hook(row, mapped, beyond, hole);
    }
    this.#forget(row);
    history.ended(device + STATE_SPACE, state, mapped, ledger.startOf(row), now);
    ledger.close(row, end);
  }

  /** More of the link in flight is mapped. */
  linkMapped(link: PendingLink): void {
    if (link.mapped >= link.length) this.#confirm(link.row);
  }

  #find(device: number, state: number): number {
    const { table } = this.#ledger;
    let row = table.firstWith(device, state);
    while (row >= 0 && table.kind[row] !== TWO_STEP) row = table.nextWith(row);
    return row;
  }

  /** The state of `row` is used for another range: it was never destroyed, or its end is not in the recording. */
  #abandon(row: number): void {
    const ledger = this.#ledger;
    this.#iommu.takeLink(row);
    this.#forget(row);
    if (!this.#endsSeen || ledger.isDoubtful(ledger.table.startNs[row]!)) {
      ledger.closeUnnamed(row);
      return;
    }
    for (const hook of ledger.hooks.abandoned) hook(row);
    ledger.drop(row);
  }

  /** A range that was reserved before the recording: what it holds is not known. */
  #fromBefore(device: number, state: number, address: number): number {
    const ledger = this.#ledger;
    const { table } = ledger;
    const row = ledger.begin(TWO_STEP, device, address, 0, NO_DIRECTION, state);
    table.startNs[row] = -1;
    table.flags[row] = FROM_BEFORE;
    table.segments[row] = 0;
    table.reached[row] = TRANSLATED;
    ledger.countUnknownStart(device);
    ledger.opened(row);
    return row;
  }

  #confirm(row: number): void {
    const link = this.#iommu.takeLink(row);
    if (!link || (this.#iommu.mapsSeen && link.mapped < link.length)) return; // it failed
    const { table } = this.#ledger;
    const { offset, length } = link;
    this.#addPiece(row, link);
    table.linked[row] = table.linked[row]! + length;
    table.unsynced[row] = table.unsynced[row]! + length;
    if (offset === table.linkedEnd[row]) {
      table.linkedEnd[row] = offset + length;
      const last = this.#scattered.get(row);
      if (last !== undefined) this.#absorb(row, last);
      return;
    }
    this.#scattered.set(row, Math.max(this.#scattered.get(row) ?? 0, offset + length));
    const pages = pagesTouched(link.from, length);
    if (pages <= MOST_PAGES) this.#islands.add(row, Math.floor(link.from / PAGE_SIZE), pages);
  }

  /** The segment of a link takes the place of the one that was linked there before. */
  #addPiece(row: number, { from, phys, length }: PendingLink): void {
    const { table } = this.#ledger;
    const { pieces } = table;
    const last = table.lastSegment[row]!;
    if (last >= 0 && from < pieces.iova[last]! + pieces.length[last]!) {
      // Linked out of order, or again: from now on its segments are found by their addresses.
      if ((table.flags[row]! & PIECES_ENTERED) === 0) {
        table.flags[row] = table.flags[row]! | PIECES_ENTERED;
        for (let at = table.firstSegment[row]!; at >= 0; at = pieces.next[at]!) pieces.enter(at, row);
      }
      const before = pieces.find(row, from);
      if (before >= 0) {
        table.length[row] = table.length[row]! - pieces.length[before]! + length;
        pieces.phys[before] = phys;
        pieces.length[before] = length;
        return;
      }
    }
    const at = table.addPiece(row, from, phys, length);
    if ((table.flags[row]! & PIECES_ENTERED) !== 0) pieces.enter(at, row);
    table.segments[row] = table.segments[row]! + 1;
    table.length[row] = table.length[row]! + length;
  }

  /** Islands that the prefix has reached; nothing is linked from `last` on. */
  #absorb(row: number, last: number): void {
    const { table } = this.#ledger;
    for (;;) {
      const end = table.iova[row]! + table.linkedEnd[row]!;
      const page = Math.floor(end / PAGE_SIZE);
      if (end % PAGE_SIZE !== 0 || !this.#islands.overlaps(row, page, 1)) return;
      this.#islands.remove(row, page, 1);
      table.linkedEnd[row] = Math.max(table.linkedEnd[row]!, Math.min(last, table.linkedEnd[row]! + PAGE_SIZE));
    }
  }

  /** The first offset in [from, to) that is not linked; -1: all is. */
  #hole(row: number, from: number, to: number): number {
    const { table } = this.#ledger;
    const at = Math.max(from, table.linkedEnd[row]!);
    if (at >= to) return -1;
    if (!this.#scattered.has(row)) return at;
    const iova = table.iova[row]!;
    const page = Math.floor((iova + at) / PAGE_SIZE);
    const missing = this.#islands.firstMissing(row, page, Math.min(MOST_PAGES, pagesTouched(iova + at, to - at)));
    return missing < 0 ? -1 : Math.max(at, missing * PAGE_SIZE - iova);
  }

  /** Bytes linked at or after `offset`; of links out of order whole pages. */
  #beyond(row: number, offset: number): number {
    const { table } = this.#ledger;
    let bytes = Math.max(0, table.linkedEnd[row]! - offset);
    const from = Math.ceil((table.iova[row]! + offset) / PAGE_SIZE);
    const last = this.#scattered.get(row);
    if (last !== undefined)
      this.#islands.eachRun(row, (page, pages) => {
        const to = Math.min((page + pages) * PAGE_SIZE, table.iova[row]! + last);
        bytes += Math.max(0, to - Math.max(page, from) * PAGE_SIZE);
      });
    return bytes;
  }

  /** The bytes of [from, to) are linked no more. */
  #remove(row: number, from: number, to: number): void {
    const { table } = this.#ledger;
    const prefix = table.linkedEnd[row]!;
    const iova = table.iova[row]!;
    table.linked[row] = Math.max(0, table.linked[row]! - Math.max(0, to - from));
    if (to > prefix)
      this.#islands.remove(
        row,
        Math.floor((iova + from) / PAGE_SIZE),
        pagesTouched(iova + from, Math.max(0, to - from)),
      );
    if (from >= prefix) return;
    table.linkedEnd[row] = from;
    if (to >= prefix) return;
    // The end of the prefix stays, behind a hole.
    this.#scattered.set(row, Math.max(this.#scattered.get(row) ?? 0, prefix));
    const page = Math.ceil((iova + to) / PAGE_SIZE);
    const pages = Math.ceil((iova + prefix) / PAGE_SIZE) - page;
    if (pages > 0 && pages <= MOST_PAGES) this.#islands.add(row, page, pages);
  }

  #forget(row: number): void {
    if (!this.#scattered.delete(row)) return;
    this.#islands.remove(row, 0, Number.MAX_SAFE_INTEGER);
  }
}
