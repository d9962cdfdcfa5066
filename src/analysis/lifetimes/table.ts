/**
 * Lifetimes as columns: every mapping that is live now, one row each.
 *
 * Idea: no object per mapping. A row is taken when a mapping begins, filled by the tracker (tracker.ts), shown to whoever
 * watches when it ends, and then used again: memory follows the mappings that are live at once, not the trace.
 * Rows are found by the page of their DMA address ({@link LifetimeTable.firstAt}) or by a handle: the state pointer
 * of a two-step range, the first physical address of a scatterlist.
 * Not for: keeping rows. A watcher copies what it needs.
 */
import { PAGE_SIZE } from "../../base/index.ts";

/** How a mapping was made. The last kind is never in a table: what only `iommu:map` events show, without a device. */
export const KINDS: readonly string[] = ["one-shot", "scatterlist", "coherent", "two-step", "unattributed"];
export const ONE_SHOT = 0;
export const SCATTERLIST = 1;
export const COHERENT = 2;
export const TWO_STEP = 3;

/** How the device's address leads to memory. */
/** The address is the memory's: nothing needs to be given back. */
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
export const TORN = 1;
/** A finding was made of it: what follows from the same fault is not reported again. */
export const REPORTED = 2;
/** It began before the recording. */
export const FROM_BEFORE = 4;

const FIRST_ROWS = 1024;

export class LifetimeTable {
  declare kind: Uint8Array;
  /** Index into {@link devices}, or {@link NO_DEVICE}. */
  declare device: Uint16Array;
  /** The kernel's number: 0 both, 1 to device, 2 from device, 3 none; {@link NO_DIRECTION} where no event says. */
  declare direction: Uint8Array;
  /** {@link DIRECT}, {@link TRANSLATED} or {@link REMAPPED}. */
  declare translated: Uint8Array;
  declare flags: Uint8Array;
  /** DMA address, bytes. */
  declare iova: Float64Array;
  /** Bytes mapped; two-step: bytes linked. */
  declare length: Float64Array;
  /** Bytes of address space held; two-step: as reserved. */
  declare reserved: Float64Array;
  /** First byte of memory; -1: unknown. */
  declare phys: Float64Array;
  /** Nanoseconds since the trace's time base; -1: before the recording. */
  declare startNs: Float64Array;
  /** -1: live. */
  declare endNs: Float64Array;
  declare cpu: Uint16Array;
  declare pid: Int32Array;
  /** Index into the trace's strings. */
  declare task: Uint32Array;
  /** Index into the trace's types: the event that it began with. */
  declare type: Uint16Array;
  /** Index into the call sites that were seen; 0: none. */
  declare site: Uint32Array;
  /** 1, the entries of a list, or links. */
  declare segments: Uint32Array;
  /** Direct: how often the same memory is mapped at once; otherwise 1, but see mappings.ts for bounce slots. */
  declare repeats: Uint32Array;
  /** In the order of beginning, from 0. */
  declare id: Float64Array;
  /** State pointer or first physical address; -1: none. */
  declare handle: Float64Array;
  /** Two-step: bytes that the next sync covers; end of the linked prefix; bytes linked outside of it. */
  declare unsynced: Float64Array;
  declare linkedEnd: Float64Array;

  readonly devices: string[] = [];
  /** Rows in use. */
  live = 0;
  /** Rows that were ever in use lie in [0, used). */
  used = 0;
  #capacity = 0;
  #free = -1;
  /** Next row of the same slot of the page index, or of the free list. */
  #next!: Int32Array;
  #nextHandle!: Int32Array;
  #slots = new Int32Array(FIRST_ROWS * 2).fill(-1);
  #handles = new Int32Array(FIRST_ROWS * 2).fill(-1);
  /** 1: in use. */
  #inUse!: Uint8Array;

  constructor() {
    this.#grow(FIRST_ROWS);
  }

  /** A row with its place in the index; the caller fills the rest. */
  take(device: number, iova: number, handle: number): number {
    let row = this.#free;
    if (row >= 0) this.#free = this.#next[row]!;
    else {
      if (this.used === this.#capacity) this.#grow(this.#capacity * 2);
      row = this.used++;
    }
    this.live++;
    this.#inUse[row] = 1;
    this.device[row] = device;
    this.iova[row] = iova;
    this.handle[row] = handle;
    const slot = hashOf(Math.floor(iova / PAGE_SIZE)) & (this.#slots.length - 1);
    this.#next[row] = this.#slots[slot]!;
    this.#slots[slot] = row;
    if (handle >= 0) {
      const at = hashOf(handle) & (this.#handles.length - 1);
      this.#nextHandle[row] = this.#handles[at]!;
      this.#handles[at] = row;
    }
    return row;
  }

  /** Gives the row back. */
  release(row: number): void {
    const slot = hashOf(Math.floor(this.iova[row]! / PAGE_SIZE)) & (this.#slots.length - 1);
    unchain(this.#slots, this.#next, slot, row);
    if (this.handle[row]! >= 0)
      unchain(this.#handles, this.#nextHandle, hashOf(this.handle[row]!) & (this.#handles.length - 1), row);
    this.#inUse[row] = 0;
    this.#next[row] = this.#free;
    this.#free = row;
    this.live--;
  }

  isLive(row: number): boolean {
    return this.#inUse[row] === 1;
  }

  /** The newest row whose address lies on `page`, whatever its device; -1: none. */
  firstAt(page: number): number {
    return this.#onPage(this.#slots[hashOf(page) & (this.#slots.length - 1)]!, page);
  }

  /** The next older one on the same page. */
  nextAt(row: number, page: number): number {
    return this.#onPage(this.#next[row]!, page);
  }

  #onPage(row: number, page: number): number {
    while (row >= 0 && Math.floor(this.iova[row]! / PAGE_SIZE) !== page) row = this.#next[row]!;
    return row;
  }

  /** The newest row with this handle, or -1; then the next older one. */
  firstOf(handle: number): number {
    return this.#ofHandle(this.#handles[hashOf(handle) & (this.#handles.length - 1)]!, handle);
  }

  nextOf(row: number, handle: number): number {
    return this.#ofHandle(this.#nextHandle[row]!, handle);
  }

  #ofHandle(row: number, handle: number): number {
    while (row >= 0 && this.handle[row] !== handle) row = this.#nextHandle[row]!;
    return row;
  }

  #grow(capacity: number): void {
    const wider = <T extends Column>(make: new (length: number) => T, old: T | undefined): T => {
      const column = new make(capacity);
      if (old) column.set(old as never);
      return column;
    };
    this.kind = wider(Uint8Array, this.kind);
    this.device = wider(Uint16Array, this.device);
    this.direction = wider(Uint8Array, this.direction);
    this.translated = wider(Uint8Array, this.translated);
    this.flags = wider(Uint8Array, this.flags);
    this.iova = wider(Float64Array, this.iova);
    this.length = wider(Float64Array, this.length);
    this.reserved = wider(Float64Array, this.reserved);
    this.phys = wider(Float64Array, this.phys);
    this.startNs = wider(Float64Array, this.startNs);
    this.endNs = wider(Float64Array, this.endNs);
    this.cpu = wider(Uint16Array, this.cpu);
    this.pid = wider(Int32Array, this.pid);
    this.task = wider(Uint32Array, this.task);
    this.type = wider(Uint16Array, this.type);
    this.site = wider(Uint32Array, this.site);
    this.segments = wider(Uint32Array, this.segments);
    this.repeats = wider(Uint32Array, this.repeats);
    this.id = wider(Float64Array, this.id);
    this.handle = wider(Float64Array, this.handle);
    this.unsynced = wider(Float64Array, this.unsynced);
    this.linkedEnd = wider(Float64Array, this.linkedEnd);
    this.#next = wider(Int32Array, this.#next);
    this.#nextHandle = wider(Int32Array, this.#nextHandle);
    this.#inUse = wider(Uint8Array, this.#inUse);
    this.#capacity = capacity;
    this.#rehash(capacity * 2);
  }

  #rehash(slots: number): void {
    this.#slots = new Int32Array(slots).fill(-1);
    this.#handles = new Int32Array(slots).fill(-1);
    // Oldest first, so that the newest stays first in its chain.
    const rows: number[] = [];
    for (let row = 0; row < this.used; row++) if (this.#inUse[row] === 1) rows.push(row);
    rows.sort((a, b) => this.id[a]! - this.id[b]!);
    for (const row of rows) {
      const slot = hashOf(Math.floor(this.iova[row]! / PAGE_SIZE)) & (slots - 1);
      this.#next[row] = this.#slots[slot]!;
      this.#slots[slot] = row;
      if (this.handle[row]! < 0) continue;
      const at = hashOf(this.handle[row]!) & (slots - 1);
      this.#nextHandle[row] = this.#handles[at]!;
      this.#handles[at] = row;
    }
  }
}

type Column = Uint8Array | Uint16Array | Uint32Array | Int32Array | Float64Array;

function unchain(slots: Int32Array, next: Int32Array, slot: number, row: number): void {
  let at = slots[slot]!;
  if (at === row) {
    slots[slot] = next[row]!;
    return;
  }
  while (next[at] !== row) at = next[at]!;
  next[at] = next[row]!;
}

/** Mixes a whole number of up to 53 bits. */
export function hashOf(value: number): number {
  const low = value | 0;
  const high = (value / 0x1_0000_0000) | 0;
  let mixed = Math.imul(low ^ Math.imul(high, 0x9e3779b1), 0x85ebca6b);
  mixed ^= mixed >>> 13;
  mixed = Math.imul(mixed, 0xc2b2ae35);
  return (mixed ^ (mixed >>> 16)) >>> 0;
}
