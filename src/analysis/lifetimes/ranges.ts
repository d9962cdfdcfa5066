/**
 * Two-step ranges: from the probe events on `dma_iova_*` to lifetimes.
 *
 * Idea: a range is found by the address of its state. Probes fire when a function is entered, so a link may yet fail: it
 * counts when its `iommu:map` events have come, or, in a trace without those, when the range goes on to be used.
 * Specified by: behaviour of the two-step API in Linux 7.2; `dma_iova_try_alloc` is recorded at its return.
 */
import { PAGE_SIZE } from "../../base/index.ts";
import type { Unmatched } from "../findings/rule.ts";
import type { IommuEvents, PendingLink } from "./iommu-events.ts";
import type { Ledger } from "./ledger.ts";
import { FROM_BEFORE, NO_DIRECTION, TRANSLATED, TWO_STEP } from "./table.ts";

/** States in the history: apart from addresses. */
const STATE_SPACE = 0x1_0000;

/** Linked bytes of a range that do not follow on its prefix: [from, to) by offset, ascending, apart. */
type Islands = { from: number; to: number }[];

export class Ranges {
  readonly #ledger: Ledger;
  readonly #iommu: IommuEvents;
  readonly #islands = new Map<number, Islands>();
  /** Ranges are seen to end in this trace: one whose state is used again was abandoned. */
  #endsSeen = false;

  constructor(ledger: Ledger, iommu: IommuEvents) {
    this.#ledger = ledger;
    this.#iommu = iommu;
  }

  /** `dma_iova_try_alloc` that succeeded. */
  reserve(device: number, state: number, address: number, length: number): void {
    const ledger = this.#ledger;
    const { table } = ledger;
    this.#iommu.settle(ledger.now.cpu, -1);
    const old = this.#find(device, state);
    if (old >= 0) {
      const known = this.#endsSeen && !ledger.isDoubtful(table.startNs[old]!);
      if (known) for (const hook of ledger.hooks.abandoned) hook(old);
      this.#iommu.takeLink(old);
      this.#islands.delete(old);
      ledger.drop(old);
    }
    const row = ledger.begin(TWO_STEP, device, address, 0, NO_DIRECTION, state);
    this.#islands.delete(row);
    table.reserved[row] = length;
    table.segments[row] = 0;
    table.translated[row] = TRANSLATED;
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
    const { table } = ledger;
    this.#iommu.settle(ledger.now.cpu, -1);
    const row = this.#find(device, state) >= 0 ? this.#find(device, state) : this.#fromBefore(device, state, address);
    this.#confirm(row);
    table.direction[row] = direction;
    if (table.phys[row]! < 0) table.phys[row] = phys;
    for (const hook of ledger.hooks.linking) hook(row, offset, length, phys);
    const from = table.iova[row]! + offset;
    this.#iommu.expect({ row, offset, length, from, to: from + length, mapped: 0 });
  }

  sync(device: number, state: number, offset: number, length: number): void {
    const ledger = this.#ledger;
    this.#iommu.settle(ledger.now.cpu, -1);
    const row = this.#find(device, state);
    if (row < 0) return; // of before the recording
    this.#confirm(row);
    ledger.table.unsynced[row] = 0;
    for (const hook of ledger.hooks.synced) hook(row, offset, length);
  }

  unlink(device: number, state: number, offset: number, length: number): void {
    const ledger = this.#ledger;
    const { table } = ledger;
    this.#iommu.settle(ledger.now.cpu, -1);
    const row = this.#find(device, state);
    if (row < 0) return;
    this.#confirm(row);
    const known = (table.flags[row]! & FROM_BEFORE) === 0;
    const hole = known ? this.#hole(row, offset, offset + length) : -1;
    for (const hook of ledger.hooks.unlinking) hook(row, offset, length, hole);
    this.#remove(row, offset, hole >= 0 ? hole : offset + length);
    this.#iommu.announce(Math.floor((table.iova[row]! + offset) / PAGE_SIZE), device);
  }

  /** `dma_iova_destroy`, or with `mapped` 0 `dma_iova_free`. */
  destroy(device: number, state: number, address: number, mapped: number, direction: number): void {
    const ledger = this.#ledger;
    const { table, history, now } = ledger;
    this.#endsSeen = true;
    this.#iommu.settle(now.cpu, -1);
    if (mapped > 0) this.#iommu.announce(Math.floor(address / PAGE_SIZE), device);
    const row = this.#find(device, state);
    const end = ledger.end(TWO_STEP, device, address, mapped, direction);
    if (row < 0) {
      ledger.unmatched(end, this.#why(device, state));
      history.ended(device + STATE_SPACE, state, mapped, undefined, now);
      return;
    }
    this.#confirm(row);
    if ((table.flags[row]! & FROM_BEFORE) === 0) {
      const hole = this.#hole(row, 0, mapped);
      const beyond = this.#beyond(row, mapped);
      for (const hook of ledger.hooks.destroying) hook(row, mapped, beyond, hole);
    }
    this.#islands.delete(row);
    history.ended(device + STATE_SPACE, state, mapped, ledger.startOf(row), now);
    ledger.close(row, end);
  }

  /** The link in flight, now that its maps have come or not. */
  linkMapped(link: PendingLink): void {
    if (link.mapped >= link.length) this.#confirm(link.row);
  }

  #find(device: number, state: number): number {
    const { table } = this.#ledger;
    let row = table.firstOf(state);
    while (row >= 0 && (table.device[row] !== device || table.kind[row] !== TWO_STEP)) row = table.nextOf(row, state);
    return row;
  }

  /** A range that was reserved before the recording: what it holds is not known. */
  #fromBefore(device: number, state: number, address: number): number {
    const ledger = this.#ledger;
    const { table } = ledger;
    const row = ledger.begin(TWO_STEP, device, address, 0, NO_DIRECTION, state);
    table.startNs[row] = -1;
    table.flags[row] = FROM_BEFORE;
    table.segments[row] = 0;
    ledger.unknownStart++;
    for (const hook of ledger.hooks.opened) hook(row);
    return row;
  }

  #confirm(row: number): void {
    const link = this.#iommu.takeLink(row);
    if (!link || (this.#iommu.seen && link.mapped < link.length)) return; // it failed
    const { table } = this.#ledger;
    table.length[row] = table.length[row]! + link.length;
    table.segments[row] = table.segments[row]! + 1;
    table.unsynced[row] = table.unsynced[row]! + link.length;
    const to = link.offset + link.length;
    if (link.offset === table.linkedEnd[row]) {
      table.linkedEnd[row] = to;
      if (this.#islands.size > 0) this.#absorb(row);
      return;
    }
    const islands = this.#islands.get(row) ?? [];
    islands.push({ from: link.offset, to });
    islands.sort((a, b) => a.from - b.from);
    this.#islands.set(row, islands);
  }

  /** Islands that the prefix has reached. */
  #absorb(row: number): void {
    const { table } = this.#ledger;
    const islands = this.#islands.get(row);
    while (islands?.[0] && islands[0].from <= table.linkedEnd[row]!)
      table.linkedEnd[row] = Math.max(table.linkedEnd[row]!, islands.shift()!.to);
    if (islands?.length === 0) this.#islands.delete(row);
  }

  /** The first offset in [from, to) that is not linked; -1: all is. */
  #hole(row: number, from: number, to: number): number {
    let at = from;
    if (at < this.#ledger.table.linkedEnd[row]!) at = this.#ledger.table.linkedEnd[row]!;
    for (const island of this.#islands.get(row) ?? []) if (island.from <= at && at < island.to) at = island.to;
    return at >= to ? -1 : at;
  }

  /** Bytes linked at or after `offset`. */
  #beyond(row: number, offset: number): number {
    let bytes = Math.max(0, this.#ledger.table.linkedEnd[row]! - offset);
    for (const { from, to } of this.#islands.get(row) ?? []) bytes += Math.max(0, to - Math.max(from, offset));
    return bytes;
  }

  #remove(row: number, from: number, to: number): void {
    const { table } = this.#ledger;
    const pieces: Islands = [{ from: 0, to: table.linkedEnd[row]! }, ...(this.#islands.get(row) ?? [])];
    const left = pieces
      .flatMap((piece) => [
        { from: piece.from, to: Math.min(piece.to, from) },
        { from: Math.max(piece.from, to), to: piece.to },
      ])
      .filter((piece) => piece.from < piece.to);
    const before = pieces.reduce((sum, piece) => sum + piece.to - piece.from, 0);
    const after = left.reduce((sum, piece) => sum + piece.to - piece.from, 0);
    table.length[row] = Math.max(0, table.length[row]! - (before - after));
    const first = left[0]?.from === 0 ? left.shift()! : undefined;
    table.linkedEnd[row] = first?.to ?? 0;
    if (left.length > 0) this.#islands.set(row, left);
    else this.#islands.delete(row);
  }

  #why(device: number, state: number): Unmatched {
    const ledger = this.#ledger;
    const index = ledger.history.find(device + STATE_SPACE, state);
    if (index >= 0) {
      const end = ledger.history.endOf(index);
      if (!ledger.isDoubtful(end.timeNs))
        return {
          why: "again",
          earlier: { length: ledger.history.lengthOf(index), start: ledger.history.startOf(index), end },
        };
    }
    return { why: "unknown-start" };
  }
}
