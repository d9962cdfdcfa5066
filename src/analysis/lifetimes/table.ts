/**
 * Lifetimes as columns: every mapping that is live now, one row each.
 *
 * Idea: no object per mapping. A row is taken when a mapping begins, filled by who reads its events, shown to whoever
 * watches when it ends, and then used again: memory follows the mappings that are live at once, not the trace.
 * Rows are found by the place of their DMA address in any address space ({@link LifetimeTable.firstNear}), by device and
 * exact address, or by device and handle: the state pointer of a two-step range, the first physical address of a list.
 * Not for: keeping rows. A watcher copies what it needs.
 */
import { PAGE_SIZE } from "../../base/index.ts";
import { ChainedIndex, hashOf } from "./chained-index.ts";
import { FIRST_ROWS, RowNumbers, widened } from "./columns.ts";
import { NO_SEGMENT, Segments } from "./segments.ts";

/** How a mapping was made, by the number in {@link LifetimeTable.kind}. */
export const KINDS = ["one-shot", "scatterlist", "coherent", "two-step", "unattributed"] as const;
/** How a mapping was made. */
export type Kind = (typeof KINDS)[number];
export const ONE_SHOT = 0;
export const SCATTERLIST = 1;
export const COHERENT = 2;
export const TWO_STEP = 3;
/** What only `iommu:map` events show, without a device. */
export const UNATTRIBUTED = 4;

/** How the device's address leads to memory, by the number in {@link LifetimeTable.reached}. */
export const REACHED = ["direct", "translated", "remapped"] as const;
/** The device's address is the physical address of the memory: nothing needs to be given back. */
export const DIRECT = 0;
/** `iommu:map` events were seen for it. */
export const TRANSLATED = 1;
/** Its address differs from the memory's, by a bounce buffer or a translation that the trace does not show. */
export const REMAPPED = 2;

/** No event names the device. */
export const NO_DEVICE = 0xffff;

/** No event says which way the data go: -1, as a column holds it. */
export const NO_DIRECTION = 0xff;

/** Bits of {@link LifetimeTable.flags}. */
/** Its pages were taken back by an `iommu:unmap`; the event that says so by name is still to come. */
export const PAGES_GONE = 1;
/** A finding was made of it: what follows from the same fault is not reported again. */
export const REPORTED = 2;
/** It began before the recording. */
export const FROM_BEFORE = 4;
/** A list whose entries lie apart in the device's address space. */
export const APART = 8;
/** It ended, and the call that ended it is not in the recording. */
export const END_NOT_RECORDED = 16;
/** Its segments are found by their addresses: some were mapped again, or in no order. */
export const PIECES_ENTERED = 32;
/** Its pages are gone, unless they were another mapping's: the unmap fits several. */
export const CONTESTED = 64;
/** It can be found: it is in the indexes. */
const FINDABLE = 128;

/** Mappings that are live, as columns; rows are used again. */
export class LifetimeTable {
  /** Index into {@link KINDS}. */
  kind: Uint8Array = new Uint8Array(FIRST_ROWS);
  /** Index into {@link devices}, or {@link NO_DEVICE}. */
  device: Uint16Array = new Uint16Array(FIRST_ROWS);
  /** The kernel's number: 0 both, 1 to device, 2 from device, 3 none; {@link NO_DIRECTION} where no event says. */
  direction: Uint8Array = new Uint8Array(FIRST_ROWS);
  /** Index into {@link REACHED}. */
  reached: Uint8Array = new Uint8Array(FIRST_ROWS);
  /** What is known of the mapping besides, as bits: `APART` and others. */
  flags: Uint8Array = new Uint8Array(FIRST_ROWS);
  /** DMA address, bytes; of a list that of its first entry. */
  iova: Float64Array = new Float64Array(FIRST_ROWS);
  /** Bytes mapped: the sum of its segments. */
  length: Float64Array = new Float64Array(FIRST_ROWS);
  /** Bytes of address space held; two-step: as reserved. */
  reserved: Float64Array = new Float64Array(FIRST_ROWS);
  /** First byte of memory; -1: unknown. */
  phys: Float64Array = new Float64Array(FIRST_ROWS);
  /**
   * First page of 4 KiB of the address space held; of a list whose entries lie apart (flag `APART`) that of its first
   * entry.
   */
  page: Float64Array = new Float64Array(FIRST_ROWS);
  /** How many pages are held from there on; 0 where nothing is. */
  pages: Float64Array = new Float64Array(FIRST_ROWS);
  /** Nanoseconds since the trace's time base; -1: before the recording. */
  startNs: Float64Array = new Float64Array(FIRST_ROWS);
  /** -1: live. */
  endNs: Float64Array = new Float64Array(FIRST_ROWS);
  /** CPU that recorded its beginning. */
  cpu: Uint16Array = new Uint16Array(FIRST_ROWS);
  /** Task that was running at its beginning; -1: not recorded. */
  pid: Int32Array = new Int32Array(FIRST_ROWS);
  /** Index into the trace's strings. */
  task: Uint32Array = new Uint32Array(FIRST_ROWS);
  /** Index into the trace's types: the event that it began with. */
  type: Uint16Array = new Uint16Array(FIRST_ROWS);
  /** Index into the call sites that were seen; 0: none. */
  site: Uint32Array = new Uint32Array(FIRST_ROWS);
  /** Its segments: 1, of a list or range as many as it has. Those that an event did not show are counted too. */
  segments: Uint32Array = new Uint32Array(FIRST_ROWS);
  /** Lists: entries that the driver gave, as the event says. */
  entries: Uint32Array = new Uint32Array(FIRST_ROWS);
  /** The first of its segments in {@link pieces}; -1: the row itself is the one segment, or there is none. */
  firstSegment: Int32Array = new Int32Array(FIRST_ROWS);
  /** The last of them; -1 likewise. */
  lastSegment: Int32Array = new Int32Array(FIRST_ROWS);
  /** Remapped: how often its address was mapped again while it was live. */
  overlaps: Uint8Array = new Uint8Array(FIRST_ROWS);
  /** Its beginning in the order of the recording; unique. */
  id: Float64Array = new Float64Array(FIRST_ROWS);
  /** Its end in the same order; -1: live. */
  endOrder: Float64Array = new Float64Array(FIRST_ROWS);
  /** State pointer or first physical address; -1: none. */
  handle: Float64Array = new Float64Array(FIRST_ROWS);
  /** Two-step: bytes linked now. */
  linked: Float64Array = new Float64Array(FIRST_ROWS);
  /** Two-step: bytes that the next sync covers. */
  unsynced: Float64Array = new Float64Array(FIRST_ROWS);
  /** Two-step: end of the linked prefix. */
  linkedEnd: Float64Array = new Float64Array(FIRST_ROWS);

  /** Names, by index. */
  readonly devices: string[] = [];
  /** The segments of mappings that have more than one. */
  readonly pieces: Segments = new Segments();
  readonly #numbers = new RowNumbers();
  readonly #byPlace = new ChainedIndex();
  readonly #byAddress = new ChainedIndex();
  readonly #byHandle = new ChainedIndex();
  #granule: number = PAGE_SIZE;
  #capacity: number = FIRST_ROWS;

  /** Rows in use. */
  get live(): number {
    return this.#numbers.live;
  }

  /** Rows that were ever in use lie in [0, used). */
  get used(): number {
    return this.#numbers.used;
  }

  /** Rows there is room for. */
  get capacity(): number {
    return this.#capacity;
  }

  /** Is `row` a mapping that has not ended yet? False for a row that was given back. */
  isLive(row: number): boolean {
    return this.#numbers.isLive(row);
  }

  /** The smallest page of the IOMMU, bytes: a power of two. */
  get granule(): number {
    return this.#granule;
  }

  /** To be set before many rows are live: all of them find new places. */
  set granule(bytes: number) {
    this.#granule = bytes;
    this.#byPlace.clear();
    const rows: number[] = [];
    for (let row = 0; row < this.used; row++)
      if (this.isLive(row) && (this.flags[row]! & FINDABLE) !== 0 && this.#hasPlace(row)) rows.push(row);
    rows.sort((a, b) => this.id[a]! - this.id[b]!); // oldest first: the newest is found first
    for (const row of rows) this.#byPlace.add(row, this.#placeHash(row));
  }

  /** A row; the caller fills it and, if it is to be found, calls {@link enter}. */
  take(): number {
    const row = this.#numbers.take();
    if (row === this.#capacity) this.#grow(this.#capacity * 2);
    this.flags[row] = 0;
    this.firstSegment[row] = NO_SEGMENT;
    this.lastSegment[row] = NO_SEGMENT;
    return row;
  }

  /** From now on it is found by its address and its handle, which stay as they are. */
  enter(row: number): void {
    this.flags[row] = this.flags[row]! | FINDABLE;
    if (this.#hasPlace(row)) this.#byPlace.add(row, this.#placeHash(row));
    this.#byAddress.add(row, hashOf(this.iova[row]!, this.device[row]!));
    if (this.handle[row]! >= 0) this.#byHandle.add(row, hashOf(this.handle[row]!, this.device[row]!));
  }

  /** Gives the row and its segments back. */
  release(row: number): void {
    if ((this.flags[row]! & FINDABLE) !== 0) {
      if (this.#hasPlace(row)) this.#byPlace.remove(row, this.#placeHash(row));
      this.#byAddress.remove(row, hashOf(this.iova[row]!, this.device[row]!));
      if (this.handle[row]! >= 0) this.#byHandle.remove(row, hashOf(this.handle[row]!, this.device[row]!));
    }
    this.pieces.release(this.firstSegment[row]!);
    this.#numbers.release(row);
  }

  /** Appends a segment to `row`; its index in {@link pieces}. */
  addPiece(row: number, iova: number, phys: number, length: number): number {
    const at = this.pieces.add(iova, phys, length);
    const last = this.lastSegment[row]!;
    if (last >= 0) this.pieces.next[last] = at;
    else this.firstSegment[row] = at;
    this.lastSegment[row] = at;
    return at;
  }

  /** Calls `visit` with each segment of `row` that is known, in the order in which they were mapped. */
  eachPiece(row: number, visit: (iova: number, phys: number, length: number) => void): void {
    let at = this.firstSegment[row]!;
    if (at < 0) {
      if (this.segments[row]! > 0) visit(this.iova[row]!, this.phys[row]!, this.length[row]!);
      return;
    }
    const { iova, phys, length, next } = this.pieces;
    for (; at >= 0; at = next[at]!) visit(iova[at]!, phys[at]!, length[at]!);
  }

  /** The newest row that begins in the same granule as `address`, whatever its device; -1: none. Direct ones have no place. */
  firstNear(address: number): number {
    const place = Math.floor(address / this.#granule);
    return this.#atPlace(this.#byPlace.first(hashOf(place)), place);
  }

  /** The next older one in the granule of `row`. */
  nextNear(row: number): number {
    return this.#atPlace(this.#byPlace.next(row), Math.floor(this.iova[row]! / this.#granule));
  }

  #atPlace(row: number, place: number): number {
    while (row >= 0 && Math.floor(this.iova[row]! / this.#granule) !== place) row = this.#byPlace.next(row);
    return row;
  }

  /** The newest row of `device` at exactly `iova`; -1: none. */
  firstOf(device: number, iova: number): number {
    return this.#atAddress(this.#byAddress.first(hashOf(iova, device)), device, iova);
  }

  /** The next older one at the address of `row`. */
  nextOf(row: number): number {
    return this.#atAddress(this.#byAddress.next(row), this.device[row]!, this.iova[row]!);
  }

  #atAddress(row: number, device: number, iova: number): number {
    while (row >= 0 && (this.iova[row] !== iova || this.device[row] !== device)) row = this.#byAddress.next(row);
    return row;
  }

  /** The newest row of `device` with this handle; -1: none. */
  firstWith(device: number, handle: number): number {
    return this.#withHandle(this.#byHandle.first(hashOf(handle, device)), device, handle);
  }

  /** The next older one with the handle of `row`. */
  nextWith(row: number): number {
    return this.#withHandle(this.#byHandle.next(row), this.device[row]!, this.handle[row]!);
  }

  #withHandle(row: number, device: number, handle: number): number {
    while (row >= 0 && (this.handle[row] !== handle || this.device[row] !== device)) row = this.#byHandle.next(row);
    return row;
  }

  /** A direct mapping holds no address space of its own. */
  #hasPlace(row: number): boolean {
    return this.reached[row] !== DIRECT;
  }

  #placeHash(row: number): number {
    return hashOf(Math.floor(this.iova[row]! / this.#granule));
  }

  #grow(rows: number): void {
    this.kind = widened(this.kind, rows);
    this.device = widened(this.device, rows);
    this.direction = widened(this.direction, rows);
    this.reached = widened(this.reached, rows);
    this.flags = widened(this.flags, rows);
    this.iova = widened(this.iova, rows);
    this.length = widened(this.length, rows);
    this.reserved = widened(this.reserved, rows);
    this.phys = widened(this.phys, rows);
    this.page = widened(this.page, rows);
    this.pages = widened(this.pages, rows);
    this.startNs = widened(this.startNs, rows);
    this.endNs = widened(this.endNs, rows);
    this.cpu = widened(this.cpu, rows);
    this.pid = widened(this.pid, rows);
    this.task = widened(this.task, rows);
    this.type = widened(this.type, rows);
    this.site = widened(this.site, rows);
    this.segments = widened(this.segments, rows);
    this.entries = widened(this.entries, rows);
    this.firstSegment = widened(this.firstSegment, rows);
    this.lastSegment = widened(this.lastSegment, rows);
    this.overlaps = widened(this.overlaps, rows);
    this.id = widened(this.id, rows);
    this.endOrder = widened(this.endOrder, rows);
    this.handle = widened(this.handle, rows);
    this.linked = widened(this.linked, rows);
    this.unsynced = widened(this.unsynced, rows);
    this.linkedEnd = widened(this.linkedEnd, rows);
    this.#byPlace.grow(rows, (row) => this.#placeHash(row));
    this.#byAddress.grow(rows, (row) => hashOf(this.iova[row]!, this.device[row]!));
    this.#byHandle.grow(rows, (row) => hashOf(this.handle[row]!, this.device[row]!));
    this.#capacity = rows;
  }
}
