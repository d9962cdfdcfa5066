/**
 * One-shot mappings and coherent memory: from `dma:*` events to lifetimes.
 *
 * Idea: a mapping is found by device and DMA address. Of several at one address that one ended whose pages are gone, else the
 * newest. An end without a mapping gets the strongest reason that the events prove (unmatched-ends.ts).
 * Knows: a direct mapping needs no unmap, and the same memory may be mapped many times at once; an address may be mapped
 * again before the event of the unmap that freed it, which another CPU writes.
 * Specified by: the order of the kernel's events (docs/analyze-a-trace.md).
 */
import { FAILED } from "./event-plan.ts";
import type { Place } from "./history.ts";
import type { IommuMatcher } from "./iommu-matcher.ts";
import type { Ledger } from "./ledger.ts";
import type { PendingUnmap } from "./pending-unmap.ts";
import {
  APART,
  COHERENT,
  DIRECT,
  FROM_BEFORE,
  ONE_SHOT,
  PAGES_GONE,
  REMAPPED,
  REPORTED,
  TRANSLATED,
  TWO_STEP,
} from "./table.ts";
import type { UnmatchedEnds } from "./unmatched-ends.ts";
import type { SyncMiss, Unmatched } from "./watcher.ts";

/** Mappings of one address that are looked at for the one that ends. */
const MOST_AT_ONCE = 256;

/** "Failed" to a kernel whose addresses have 32 bits; elsewhere a byte that somebody may have mapped. */
const ALL_ONES_32 = 0xffff_ffff;

/** An end of one device that took what only another device has; judged when that one is used again or left. */
interface Suspicion {
  readonly id: number;
  readonly by: number;
  readonly event: Place;
}

export class OneShot {
  readonly #ledger: Ledger;
  readonly #iommu: IommuMatcher;
  readonly #ends: UnmatchedEnds;
  readonly #suspicions = new Map<number, Suspicion>();

  constructor(ledger: Ledger, iommu: IommuMatcher, ends: UnmatchedEnds) {
    this.#ledger = ledger;
    this.#iommu = iommu;
    this.#ends = ends;
  }

  /** `dma_map_phys` and its older names. */
  map(device: number, iova: number, length: number, phys: number, direction: number): void {
    const ledger = this.#ledger;
    const { table } = ledger;
    this.#iommu.other(ledger.now.cpu);
    this.#iommu.mapsNamed = true;
    const row = ledger.begin(ONE_SHOT, device, iova, length, direction);
    table.phys[row] = phys;
    if (!this.#claim(row, iova, length, phys)) table.reached[row] = iova === phys ? DIRECT : REMAPPED;
    ledger.opened(row);
    if (table.reached[row] === REMAPPED) this.#remapped(row);
  }

  /** `dma_alloc`. */
  alloc(device: number, iova: number, length: number, direction: number): void {
    const ledger = this.#ledger;
    const { table } = ledger;
    this.#iommu.other(ledger.now.cpu);
    if (length === 0) return;
    const row = ledger.begin(COHERENT, device, iova, length, direction);
    if (!this.#claim(row, iova, length, -1)) {
      table.reached[row] = DIRECT;
      table.phys[row] = iova;
    }
    ledger.opened(row);
  }

  /** Takes the `iommu:map` events of `row`, if there are any: then it is translated. */
  #claim(row: number, iova: number, length: number, phys: number): boolean {
    const { table } = this.#ledger;
    const { waiting } = this.#iommu;
    const claimed = this.#iommu.claim(iova, length, phys);
    const first = claimed[0];
    if (first === undefined) return false;
    table.reached[row] = TRANSLATED;
    table.page[row] = waiting.page[first]!;
    let pages = 0;
    for (const piece of claimed) pages += waiting.pages[piece]!;
    table.pages[row] = pages;
    if (phys < 0) {
      // Coherent memory: only the maps say where it lies.
      table.phys[row] = waiting.phys[first]!;
      table.segments[row] = claimed.length;
      if (claimed.length > 1)
        this.#iommu.eachClaimed(iova, length, (at, memory, bytes) => void table.addPiece(row, at, memory, bytes));
    }
    this.#iommu.releaseClaimed();
    return true;
  }

  /** `dma_unmap_phys` and its older names: after its `iommu:unmap`. */
  unmap(device: number, iova: number, length: number, direction: number): void {
    const ledger = this.#ledger;
    if (iova === FAILED || (iova === ALL_ONES_32 && this.#find(device, iova) < 0)) {
      this.#iommu.other(ledger.now.cpu);
      for (const hook of ledger.hooks.failedUsed) hook(device, length);
      return;
    }
    const last = this.#iommu.lastUnmap();
    this.#iommu.other(ledger.now.cpu);
    const row = this.#find(device, iova);
    if (row >= 0) {
      this.#iommu.named(row);
      this.#close(row, ONE_SHOT, device, iova, length, direction);
      return;
    }
    const meant = last ? this.#goneOf(device, last) : -1;
    const reason: Unmatched = meant >= 0 ? { why: "elsewhere", row: meant } : this.#ends.why(device, iova, last);
    if (last && meant >= 0) this.#iommu.resolve(last, meant);
    else this.#iommu.namedUnknown(ledger.firstPage(iova));
    this.#unmatched(ONE_SHOT, device, iova, length, direction, reason);
    if (meant >= 0) this.#endElsewhere(meant);
  }

  /** `dma_free`: before its `iommu:unmap`. */
  free(device: number, iova: number, length: number, direction: number): void {
    const ledger = this.#ledger;
    this.#iommu.other(ledger.now.cpu);
    const row = this.#find(device, iova);
    const { reached, flags } = ledger.table;
    if (row < 0 || reached[row] === TRANSLATED || (flags[row]! & FROM_BEFORE) !== 0)
      this.#iommu.announce(
        ledger.firstPage(iova),
        ledger.pagesOf(iova, length),
        device,
        row >= 0 && reached[row] === TRANSLATED,
      );
    if (row >= 0) this.#close(row, COHERENT, device, iova, length, direction);
    else this.#unmatched(COHERENT, device, iova, length, direction, this.#ends.why(device, iova, undefined));
  }

  /** A call that failed: nothing was mapped. */
  failed(device: number, length: number, error: number, isAllocation: boolean): void {
    const ledger = this.#ledger;
    this.#iommu.other(ledger.now.cpu);
    ledger.counts.failed++;
    for (const hook of ledger.hooks.failed) hook(device, length, error, isAllocation);
  }

  /** `dma_sync_*`, of one piece. */
  sync(device: number, iova: number, length: number, direction: number): void {
    const ledger = this.#ledger;
    const { table, hooks } = ledger;
    const row = this.#holding(device, iova, length);
    if (row >= 0) {
      for (const hook of hooks.syncedData) hook(row, direction, iova, length);
      return;
    }
    if (hooks.syncMissed.length === 0) return;
    const begun = table.firstOf(device, iova);
    const inside = begun >= 0 ? begun : ledger.containing(device, iova);
    const miss: SyncMiss =
      inside >= 0 ? { why: "beyond", row: inside } : { why: ledger.startListed ? "not-at-start" : "not-live" };
    for (const hook of hooks.syncMissed) hook(device, iova, length, miss);
  }

  /** The mapping of `device` that holds all of [iova, iova + length); -1: none. Of several that begin there, the newest. */
  #holding(device: number, iova: number, length: number): number {
    const { table } = this.#ledger;
    let left = MOST_AT_ONCE;
    for (let row = table.firstOf(device, iova); row >= 0 && left > 0; row = table.nextOf(row), left--)
      if (this.#holds(row, iova, length)) return row;
    const inside = this.#ledger.containing(device, iova);
    return inside >= 0 && this.#holds(inside, iova, length) ? inside : -1;
  }

  #holds(row: number, iova: number, length: number): boolean {
    const { table } = this.#ledger;
    if ((table.flags[row]! & APART) === 0) return iova + length <= table.iova[row]! + table.reserved[row]!;
    // The first piece of a list; the others are looked for by their own addresses (lists.ts).
    return table.reached[row] === DIRECT || iova + length <= table.iova[row]! + table.reserved[row]!;
  }

  /** The device that took what `row` holds, if an end of another device did. */
  suspicionOf(row: number): Suspicion | undefined {
    const suspicion = this.#suspicions.get(row);
    if (!suspicion) return undefined;
    return suspicion.id === this.#ledger.table.id[row] ? suspicion : undefined;
  }

  /** A mapping that was live when the recording began. */
  seed(kind: number, device: number, iova: number, length: number, phys: number, direction: number): void {
    const ledger = this.#ledger;
    const { table } = ledger;
    const row = ledger.begin(kind, device, iova, length, direction, kind === ONE_SHOT || kind === COHERENT ? -1 : phys);
    table.startNs[row] = -1;
    table.flags[row] = FROM_BEFORE;
    table.phys[row] = phys;
    table.reached[row] = iova === phys ? DIRECT : REMAPPED;
    ledger.enter(row);
  }

  /**
   * A bounce slot, or an address whose translation the trace does not show, that is live already. Without `iommu:*` events
   * an unmap may be written after the address is used again, so only the second time proves it.
   */
  #remapped(row: number): void {
    const { table, hooks } = this.#ledger;
    let left = MOST_AT_ONCE;
    for (let older = table.nextOf(row); older >= 0 && left > 0; older = table.nextOf(older), left--) {
      if (table.reached[older] !== REMAPPED || (table.flags[older]! & REPORTED) !== 0) continue;
      if (this.#ledger.isDoubtful(table.startNs[older]!)) continue;
      table.overlaps[older] = table.overlaps[older]! + 1;
      if (table.overlaps[older]! < 2) continue;
      for (const hook of hooks.overlapped) hook(row, older);
      table.flags[older] = table.flags[older]! | REPORTED;
    }
  }

  /** The live mapping of `device` at exactly `iova`: one whose pages are gone first, then the newest, without a finding rather. */
  #find(device: number, iova: number): number {
    const { table } = this.#ledger;
    let best = -1;
    let left = MOST_AT_ONCE;
    for (let row = table.firstOf(device, iova); row >= 0 && left > 0; row = table.nextOf(row), left--) {
      if (table.kind[row] === TWO_STEP) continue;
      if ((table.flags[row]! & PAGES_GONE) !== 0) return row;
      if (best < 0 || ((table.flags[best]! & REPORTED) !== 0 && (table.flags[row]! & REPORTED) === 0)) best = row;
      if (table.reached[row] === DIRECT) return row;
    }
    return best;
  }

  /** Of several direct mappings of the same memory which one ends cannot be told, and need not be: the newest like the end. */
  #likest(row: number, length: number, direction: number): number {
    const { table } = this.#ledger;
    let left = MOST_AT_ONCE;
    for (let one = row; one >= 0 && left > 0; one = table.nextOf(one), left--)
      if (table.length[one] === length && table.direction[one] === direction && table.reached[one] === DIRECT)
        return one;
    return row;
  }

  #close(row: number, kind: number, device: number, iova: number, length: number, direction: number): void {
    const ledger = this.#ledger;
    const { table } = ledger;
    this.#suspicions.delete(row);
    if (table.reached[row] !== DIRECT || (table.firstOf(device, iova) === row && table.nextOf(row) < 0)) {
      ledger.close(row, ledger.end(kind, device, iova, length, direction));
      return;
    }
    // One of several: that it is not like the end proves nothing.
    const one = this.#likest(row, length, direction);
    ledger.close(one, ledger.end(table.kind[one]!, device, iova, -1, -1));
  }

  #unmatched(kind: number, device: number, iova: number, length: number, direction: number, reason: Unmatched): void {
    const ledger = this.#ledger;
    const { table, now } = ledger;
    const end = ledger.end(kind, device, iova, length, direction);
    if (reason.why === "again" || reason.why === "unknown-start") {
      const other = kind === ONE_SHOT ? this.#ofOther(device, iova, length) : -1;
      if (other >= 0 && table.reached[other] === REMAPPED && reason.why === "unknown-start") {
        // Bounce slots are the machine's, not the device's: no second one has this address.
        for (const hook of ledger.hooks.wrongDevice) hook(other, device);
        table.flags[other] = table.flags[other]! | REPORTED;
        return;
      }
      if (other >= 0) this.#suspicions.set(other, { id: table.id[other]!, by: device, event: now.copy() });
    }
    ledger.unmatched(end, reason);
    ledger.history.ended(device, iova, Math.max(0, length), undefined, now);
  }

  /** A live one-shot mapping of another device that this end would fit. */
  #ofOther(device: number, iova: number, length: number): number {
    const { table } = this.#ledger;
    let left = MOST_AT_ONCE;
    for (let row = table.firstNear(iova); row >= 0 && left > 0; row = table.nextNear(row), left--)
      if (
        table.iova[row] === iova &&
        table.device[row] !== device &&
        table.kind[row] === ONE_SHOT &&
        table.length[row] === length &&
        (table.flags[row]! & REPORTED) === 0
      )
        return row;
    return -1;
  }

  /** The mapping of `device` whose pages the last `iommu:unmap` of this CPU took; -1: none. */
  #goneOf(device: number, { count, rows, ids }: PendingUnmap): number {
    const { table } = this.#ledger;
    for (let i = 0; i < count; i++) {
      const row = rows[i]!;
      if (table.isLive(row) && table.id[row] === ids[i] && table.device[row] === device) return row;
    }
    return -1;
  }

  /** Ends a mapping whose pages are gone, though the event named another address. */
  #endElsewhere(row: number): void {
    const ledger = this.#ledger;
    const { table } = ledger;
    ledger.history.endedRow(table, row, ledger.now);
    ledger.drop(row);
  }
}
