/**
 * Pieces: what `iommu:map` events mapped and no event has named a device for yet.
 *
 * Idea: columns and a hash over the first page, newest first. Most pieces leave within one event, when the `dma:*`
 * event of the same mapping takes them; those that stay are the unattributed ones.
 */
import { hashOf } from "./table.ts";

export class Pieces {
  page: Float64Array = new Float64Array(1024);
  pages: Float64Array = new Float64Array(1024);
  phys: Float64Array = new Float64Array(1024);
  startNs: Float64Array = new Float64Array(1024);
  cpu: Uint16Array = new Uint16Array(1024);
  pid: Int32Array = new Int32Array(1024);
  task: Uint32Array = new Uint32Array(1024);
  type: Uint16Array = new Uint16Array(1024);
  live = 0;
  used = 0;
  #next = new Int32Array(1024);
  #slots = new Int32Array(2048).fill(-1);
  #free = -1;

  add(page: number, pages: number, phys: number, timeNs: number, cpu: number): number {
    let index = this.#free;
    if (index >= 0) this.#free = this.#next[index]!;
    else {
      if (this.used === this.page.length) this.#grow();
      index = this.used++;
    }
    this.page[index] = page;
    this.pages[index] = pages;
    this.phys[index] = phys;
    this.startNs[index] = timeNs;
    this.cpu[index] = cpu;
    const slot = hashOf(page) & (this.#slots.length - 1);
    this.#next[index] = this.#slots[slot]!;
    this.#slots[slot] = index;
    this.live++;
    return index;
  }

  /** The newest piece that begins at `page`; -1: none. */
  firstAt(page: number): number {
    let index = this.#slots[hashOf(page) & (this.#slots.length - 1)]!;
    while (index >= 0 && this.page[index] !== page) index = this.#next[index]!;
    return index;
  }

  nextAt(index: number): number {
    const page = this.page[index]!;
    let at = this.#next[index]!;
    while (at >= 0 && this.page[at] !== page) at = this.#next[at]!;
    return at;
  }

  isLive(index: number): boolean {
    return this.pages[index]! > 0;
  }

  remove(index: number): void {
    const slot = hashOf(this.page[index]!) & (this.#slots.length - 1);
    let at = this.#slots[slot]!;
    if (at === index) this.#slots[slot] = this.#next[index]!;
    else {
      while (this.#next[at] !== index) at = this.#next[at]!;
      this.#next[at] = this.#next[index]!;
    }
    this.pages[index] = 0;
    this.#next[index] = this.#free;
    this.#free = index;
    this.live--;
  }

  /** Only when all are in use. */
  #grow(): void {
    const size = this.used * 2;
    const wider = <T extends Float64Array | Uint16Array | Uint32Array | Int32Array>(
      make: new (length: number) => T,
      old: T,
    ): T => {
      const column = new make(size);
      column.set(old as never);
      return column;
    };
    this.page = wider(Float64Array, this.page);
    this.pages = wider(Float64Array, this.pages);
    this.phys = wider(Float64Array, this.phys);
    this.startNs = wider(Float64Array, this.startNs);
    this.cpu = wider(Uint16Array, this.cpu);
    this.pid = wider(Int32Array, this.pid);
    this.task = wider(Uint32Array, this.task);
    this.type = wider(Uint16Array, this.type);
    // Oldest first, so that the newest stays first in its chain.
    const order = Array.from({ length: this.used }, (_, i) => i).sort((a, b) => this.startNs[a]! - this.startNs[b]!);
    this.#next = new Int32Array(size);
    this.#slots = new Int32Array(size * 2).fill(-1);
    for (const index of order) {
      const slot = hashOf(this.page[index]!) & (this.#slots.length - 1);
      this.#next[index] = this.#slots[slot]!;
      this.#slots[slot] = index;
    }
  }
}
