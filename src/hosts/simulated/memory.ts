/**
 * Physical memory of the simulated machine: sparse, so that terabytes of address space cost nothing until touched.
 *
 * Idea: one 4 KiB array per touched page, found by page number; an untouched page reads as zero. Bytes are moved by page,
 * never one at a time. Promises: what was written is read back; reads touch nothing.
 */
import { PAGE_SIZE, type PhysAddr, type PhysPage } from "../../base/index.ts";
import type { PhysicalMemory } from "../../platform/index.ts";

export class SimulatedMemory implements PhysicalMemory {
  readonly #pages = new Map<PhysPage, Uint8Array>();

  read(address: PhysAddr, into: Uint8Array): void {
    this.#eachPage(address, into.length, (page, offset, at, length) => {
      const bytes = this.#pages.get(page);
      if (bytes) into.set(bytes.subarray(offset, offset + length), at);
      else into.fill(0, at, at + length);
    });
  }

  write(address: PhysAddr, from: Uint8Array): void {
    this.#eachPage(address, from.length, (page, offset, at, length) => {
      let bytes = this.#pages.get(page);
      if (!bytes) {
        bytes = new Uint8Array(PAGE_SIZE);
        this.#pages.set(page, bytes);
      }
      bytes.set(from.subarray(at, at + length), offset);
    });
  }

  /** Drops the pages that [address, address + length) touches: they read as zero again. */
  forget(address: PhysAddr, length: number): void {
    this.#eachPage(address, length, (page) => void this.#pages.delete(page));
  }

  /** Pages that hold bytes of their own. */
  get touchedPages(): number {
    return this.#pages.size;
  }

  #eachPage(
    address: PhysAddr,
    length: number,
    visit: (page: PhysPage, offset: number, at: number, length: number) => void,
  ): void {
    for (let at = 0; at < length; ) {
      const offset = (address + at) % PAGE_SIZE;
      const piece = Math.min(PAGE_SIZE - offset, length - at);
      visit(((address + at - offset) / PAGE_SIZE) as PhysPage, offset, at, piece);
      at += piece;
    }
  }
}
