/**
 * One-shot mappings, scatterlists and coherent memory: from `dma:*` events to lifetimes.
 *
 * Idea: a mapping is found by device and DMA address; a scatterlist by its first physical address, which is all that its
 * unmap names. An end without a mapping gets the strongest reason that the events prove.
 * Knows: a direct mapping needs no unmap and the same memory may be mapped many times, so those are counted on one row,
 * and past {@link DIRECT_LIMIT} of them the oldest is let go; an address may be mapped again before the event of the unmap that freed it, which another CPU writes.
 * Specified by: the order of the kernel's events (docs/analyze-a-trace.md).
 */
import { PAGE_SIZE } from "../../base/index.ts";
import type { Unmatched } from "../findings/rule.ts";
import type { Place } from "./history.ts";
import type { IommuEvents } from "./iommu-events.ts";
import type { Ledger } from "./ledger.ts";
import {
  COHERENT,
  DIRECT,
  FROM_BEFORE,
  ONE_SHOT,
  REMAPPED,
  REPORTED,
  SCATTERLIST,
  TORN,
  TRANSLATED,
  TWO_STEP,
} from "./table.ts";

/** All-ones, and what a reader rounds it to: a mapping that failed. */
const FAILED = 2 ** 63;

/** Direct mappings that are remembered. */
const DIRECT_LIMIT = 1 << 18;

/** An end of one device that took what only another device has; judged when that one is used again or left. */
export interface Suspicion {
  readonly id: number;
  readonly by: number;
  readonly event: Place;
}

export class Mappings {
  readonly #ledger: Ledger;
  readonly #iommu: IommuEvents;
  readonly #suspicions = new Map<number, Suspicion>();
  /** Direct mappings, oldest first, as a ring: their rows, and which mapping each row was. */
  readonly #directRows = new Int32Array(DIRECT_LIMIT).fill(-1);
  readonly #directIds = new Float64Array(DIRECT_LIMIT);
  #directNext = 0;

  constructor(ledger: Ledger, iommu: IommuEvents) {
    this.#ledger = ledger;
    this.#iommu = iommu;
  }

  /** `dma_map_phys` and its older names. */
  map(device: number, iova: number, length: number, phys: number, direction: number): void {
    const ledger = this.#ledger;
    const { table } = ledger;
    if (iova >= FAILED) {
      for (const hook of ledger.hooks.invalid) hook(device, iova, length, false);
      return;
    }
    const claimed = this.#iommu.claim(iova, length);
    if (claimed < 0 && iova === phys && this.#again(device, iova, length, direction)) return;
    const how = claimed >= 0 ? TRANSLATED : iova === phys ? DIRECT : REMAPPED;
    const row = ledger.begin(ONE_SHOT, device, iova, length, direction);
    table.translated[row] = how;
    table.phys[row] = phys;
    if (how === REMAPPED) this.#remapped(row);
    else if (how === DIRECT) this.#remember(row);
    ledger.opened(row);
  }

  /** `dma_alloc`. */
  alloc(device: number, iova: number, length: number, direction: number): void {
    const ledger = this.#ledger;
    const { table } = ledger;
    if (length === 0) return;
    if (iova >= FAILED) {
      for (const hook of ledger.hooks.invalid) hook(device, iova, length, false);
      return;
    }
    const phys = this.#iommu.claim(iova, length);
    const row = ledger.begin(COHERENT, device, iova, length, direction);
    table.translated[row] = phys >= 0 ? TRANSLATED : DIRECT;
    table.phys[row] = phys >= 0 ? phys : iova;
    ledger.opened(row);
  }

  /** `dma_map_sg`: `iovas` and `lengths` as far as the event shows them. */
  mapList(
    device: number,
    direction: number,
    physOfFirst: number,
    iovas: readonly number[],
    lengths: readonly number[],
    full: { readonly shown: number; readonly of: number },
  ): void {
    const ledger = this.#ledger;
    const { table } = ledger;
    const first = iovas[0];
    if (first === undefined) return;
    let end = first;
    let start = first;
    let length = 0;
    let translated = false;
    iovas.forEach((iova, i) => {
      const size = lengths[i] ?? 0;
      if (this.#iommu.claim(iova, size) >= 0) translated = true;
      start = Math.min(start, iova);
      end = Math.max(end, iova + size);
      length += size;
    });
    const row = ledger.begin(SCATTERLIST, device, start, length, direction, physOfFirst);
    table.translated[row] = translated ? TRANSLATED : first === physOfFirst ? DIRECT : REMAPPED;
    if (translated) table.reserved[row] = end - start;
    table.phys[row] = physOfFirst;
    table.segments[row] = full.of;
    ledger.opened(row);
    if (full.shown < full.of) for (const hook of ledger.hooks.truncated) hook(row, full.shown, full.of);
  }

  /** `dma_unmap_phys` and its older names: after its `iommu:unmap`. */
  unmap(device: number, iova: number, length: number, direction: number): void {
    const ledger = this.#ledger;
    if (iova >= FAILED) {
      for (const hook of ledger.hooks.invalid) hook(device, iova, length, true);
      return;
    }
    const page = Math.floor(iova / PAGE_SIZE);
    const pending = this.#iommu.settle(ledger.now.cpu, page);
    const row = this.#find(device, iova);
    if (row < 0) {
      const meant = pending ? this.#tornOf(device, pending) : -1;
      const reason: Unmatched = meant >= 0 ? { why: "elsewhere", row: meant } : this.#why(device, iova, pending);
      if (pending) this.#iommu.named(pending, meant);
      this.#unmatched(ONE_SHOT, device, iova, length, direction, reason);
      if (meant >= 0) this.#end(meant);
      return;
    }
    if (pending?.page === page) this.#iommu.named(pending, row);
    this.#close(row, device, iova, length, direction);
  }

  /** `dma_free`: before its `iommu:unmap`. */
  free(device: number, iova: number, length: number, direction: number): void {
    const ledger = this.#ledger;
    this.#iommu.settle(ledger.now.cpu, -1);
    if (iova === 0 && length === 0) return; // memory of none
    const row = this.#find(device, iova);
    if (row < 0 || this.#ledger.table.translated[row] === TRANSLATED)
      this.#iommu.announce(Math.floor(iova / PAGE_SIZE), device);
    if (row >= 0) this.#close(row, device, iova, length, direction);
    else this.#unmatched(COHERENT, device, iova, length, direction, this.#why(device, iova, undefined));
  }

  /** `dma_unmap_sg`, which names physical addresses: before its `iommu:unmap`. */
  unmapList(device: number, physOfFirst: number, direction: number): void {
    const ledger = this.#ledger;
    const { table } = ledger;
    this.#iommu.settle(ledger.now.cpu, -1);
    let row = table.firstOf(physOfFirst);
    while (row >= 0 && (table.device[row] !== device || table.kind[row] !== SCATTERLIST))
      row = table.nextOf(row, physOfFirst);
    if (row >= 0) {
      if (table.translated[row] === TRANSLATED) this.#iommu.announce(Math.floor(table.iova[row]! / PAGE_SIZE), device);
      this.#close(row, device, table.iova[row]!, -1, direction);
      ledger.history.ended(device + LIST_SPACE, physOfFirst, 0, undefined, ledger.now);
      return;
    }
    const earlier = this.#earlier(device + LIST_SPACE, physOfFirst);
    this.#unmatched(
      SCATTERLIST,
      device,
      physOfFirst,
      -1,
      direction,
      earlier ?? { why: this.#ledger.startListed ? "not-at-start" : "unknown-start" },
    );
  }

  /** `dma_sync_*`. */
  sync(device: number, iova: number, length: number, direction: number): void {
    const { table, hooks } = this.#ledger;
    const page = Math.floor(iova / PAGE_SIZE);
    for (let row = table.firstAt(page); row >= 0; row = table.nextAt(row, page)) {
      if (table.device[row] !== device || table.iova[row]! > iova) continue;
      if (iova + length > table.iova[row]! + table.reserved[row]!) continue;
      for (const hook of hooks.syncedData) hook(row, direction, iova, length);
      return;
    }
  }

  /** The device that took what `row` holds, if an end of another device did. */
  suspicionOf(row: number): Suspicion | undefined {
    const suspicion = this.#suspicions.get(row);
    if (!suspicion) return undefined;
    return suspicion.id === this.#ledger.table.id[row] ? suspicion : undefined;
  }

  /** A direct mapping of memory that is mapped already: one row counts them. */
  #again(device: number, iova: number, length: number, direction: number): boolean {
    const { table } = this.#ledger;
    const page = Math.floor(iova / PAGE_SIZE);
    for (let row = table.firstAt(page); row >= 0; row = table.nextAt(row, page)) {
      if (table.device[row] !== device || table.iova[row] !== iova) continue;
      if (table.kind[row] !== ONE_SHOT || table.translated[row] !== DIRECT) continue;
      const ledger = this.#ledger;
      ledger.show(row); // the one before is seen as it is: not unmapped so far
      const { now } = ledger;
      table.repeats[row] = table.repeats[row]! + 1;
      table.length[row] = length;
      table.reserved[row] = length;
      table.direction[row] = direction;
      table.startNs[row] = now.timeNs;
      table.cpu[row] = now.cpu;
      table.pid[row] = now.pid;
      table.task[row] = now.task;
      table.type[row] = now.type;
      table.site[row] = now.site;
      table.id[row] = ledger.begun++;
      this.#remember(row);
      for (const hook of ledger.hooks.opened) hook(row);
      return true;
    }
    return false;
  }

  /** Direct mappings that are never unmapped would pile up: past the limit the oldest is let go, live as it is. */
  #remember(row: number): void {
    const { table } = this.#ledger;
    const at = this.#directNext++ % DIRECT_LIMIT;
    const oldest = this.#directRows[at]!;
    if (oldest >= 0 && table.isLive(oldest) && table.id[oldest] === this.#directIds[at]) {
      this.#ledger.letGo += table.repeats[oldest]!;
      this.#ledger.drop(oldest);
    }
    this.#directRows[at] = row;
    this.#directIds[at] = table.id[row]!;
  }

  /**
   * A bounce slot, or an address whose translation the trace does not show, that is live already. Without `iommu:*` events
   * an unmap may be written after the address is used again, so only the second time proves it.
   */
  #remapped(row: number): void {
    const { table, hooks } = this.#ledger;
    const page = Math.floor(table.iova[row]! / PAGE_SIZE);
    for (let older = table.nextAt(row, page); older >= 0; older = table.nextAt(older, page)) {
      if (table.device[older] !== table.device[row] || table.iova[older] !== table.iova[row]) continue;
      if (table.translated[older] !== REMAPPED || (table.flags[older]! & REPORTED) !== 0) continue;
      if (this.#ledger.isDoubtful(table.startNs[older]!)) continue;
      table.repeats[older] = table.repeats[older]! + 1;
      if (table.repeats[older]! < 3) continue;
      for (const hook of hooks.overlapped) hook(row, older);
      table.flags[older] = table.flags[older]! | REPORTED;
    }
  }

  /** The live mapping of `device` at exactly `iova`: one whose pages are gone first, then the newest without a finding. */
  #find(device: number, iova: number): number {
    const { table } = this.#ledger;
    const page = Math.floor(iova / PAGE_SIZE);
    let best = -1;
    for (let row = table.firstAt(page); row >= 0; row = table.nextAt(row, page)) {
      if (table.iova[row] !== iova || table.device[row] !== device || table.kind[row] === TWO_STEP) continue;
      if ((table.flags[row]! & TORN) !== 0) return row;
      if (best < 0 || ((table.flags[best]! & REPORTED) !== 0 && (table.flags[row]! & REPORTED) === 0)) best = row;
    }
    return best;
  }

  #close(row: number, device: number, iova: number, length: number, direction: number): void {
    const ledger = this.#ledger;
    const { table } = ledger;
    this.#suspicions.delete(row);
    const end = ledger.end(table.kind[row]!, device, iova, length, direction);
    if (table.translated[row] === DIRECT && table.repeats[row]! > 1) {
      // The same memory is mapped more than once: which one ends cannot be told, and need not be.
      table.repeats[row] = table.repeats[row]! - 1;
      return;
    }
    ledger.close(row, end);
  }

  #unmatched(kind: number, device: number, iova: number, length: number, direction: number, reason: Unmatched): void {
    const ledger = this.#ledger;
    const { table, now } = ledger;
    const end = ledger.end(kind, device, iova, length, direction);
    if (reason.why === "again" || reason.why === "unknown-start") {
      const other = kind === ONE_SHOT ? this.#ofOther(device, iova, length) : -1;
      if (other >= 0 && table.translated[other] === REMAPPED && reason.why === "unknown-start") {
        // Bounce slots are the machine's, not the device's: no second one has this address.
        for (const hook of ledger.hooks.wrongDevice) hook(other, device);
        this.#forget(other);
        return;
      }
      if (other >= 0) this.#suspicions.set(other, { id: table.id[other]!, by: device, event: now.copy() });
    }
    ledger.unmatched(end, reason);
    if (kind !== SCATTERLIST) ledger.history.ended(device, iova, Math.max(0, length), undefined, now);
  }

  #forget(row: number): void {
    const { table } = this.#ledger;
    table.flags[row] = table.flags[row]! | REPORTED;
  }

  /** A live one-shot mapping of another device that this end would fit. */
  #ofOther(device: number, iova: number, length: number): number {
    const { table } = this.#ledger;
    const page = Math.floor(iova / PAGE_SIZE);
    for (let row = table.firstAt(page); row >= 0; row = table.nextAt(row, page))
      if (
        table.iova[row] === iova &&
        table.device[row] !== device &&
        table.kind[row] === ONE_SHOT &&
        table.translated[row] !== DIRECT &&
        table.length[row] === length &&
        (table.flags[row]! & REPORTED) === 0
      )
        return row;
    return -1;
  }

  /** The mapping of `device` whose pages the last `iommu:unmap` of this CPU took; -1: none. */
  #tornOf(device: number, pending: NonNullable<ReturnType<IommuEvents["settle"]>>): number {
    const { table } = this.#ledger;
    for (let i = 0; i < pending.rows.length; i++) {
      const row = pending.rows[i]!;
      if (table.isLive(row) && table.id[row] === pending.ids[i] && table.device[row] === device) return row;
    }
    return -1;
  }

  /** Ends a mapping whose pages are gone, though the event named another address. */
  #end(row: number): void {
    const ledger = this.#ledger;
    const { table } = ledger;
    ledger.history.ended(table.device[row]!, table.iova[row]!, table.length[row]!, ledger.startOf(row), ledger.now);
    table.endNs[row] = ledger.now.timeNs;
    ledger.drop(row);
  }

  #why(device: number, iova: number, pending: ReturnType<IommuEvents["settle"]>): Unmatched {
    const ledger = this.#ledger;
    const { table } = ledger;
    const inside = ledger.containing(device, iova);
    if (inside >= 0 && table.translated[inside] !== DIRECT) return { why: "inside", row: inside };
    const page = Math.floor(iova / PAGE_SIZE);
    for (let row = table.firstAt(page); row >= 0; row = table.nextAt(row, page))
      if (table.device[row] === device && table.iova[row] === iova) return { why: "inside", row };
    const earlier = this.#earlier(device, iova);
    if (earlier) return earlier;
    if (pending && pending.page === page && pending.pages === 0) return { why: "nothing-there" };
    return this.#never(device, iova);
  }

  #earlier(space: number, address: number): Unmatched | undefined {
    const { history } = this.#ledger;
    const index = history.find(space, address);
    if (index < 0) return undefined;
    const end = history.endOf(index);
    if (this.#ledger.isDoubtful(end.timeNs)) return undefined;
    return { why: "again", earlier: { length: history.lengthOf(index), start: history.startOf(index), end } };
  }

  #never(device: number, iova: number): Unmatched {
    const { startListed, startPages, startDevices } = this.#ledger;
    const page = Math.floor(iova / PAGE_SIZE);
    if (startPages.overlaps(device, page, 1)) {
      startPages.remove(device, page, 1);
      return { why: "at-start" };
    }
    if (this.#ledger.letGo > 0) return { why: "unknown-start" };
    return { why: startListed || startDevices.has(device) ? "not-at-start" : "unknown-start" };
  }

  /** A mapping that was live when the recording began. */
  seed(kind: number, device: number, iova: number, length: number, phys: number, direction: number): void {
    const ledger = this.#ledger;
    const { table } = ledger;
    const row = ledger.begin(kind, device, iova, length, direction, kind === SCATTERLIST ? phys : -1);
    table.startNs[row] = -1;
    table.flags[row] = FROM_BEFORE;
    table.phys[row] = phys;
    table.translated[row] = iova === phys ? DIRECT : REMAPPED;
  }

  /** Pages that the device's page tables held when the recording began. */
  seedPages(device: number, page: number, pages: number): void {
    this.#ledger.startDevices.add(device);
    this.#ledger.startPages.add(device, page, pages);
  }
}

/** Scatterlists in the history: by physical address, apart from DMA addresses. */
const LIST_SPACE = 0x2_0000;
