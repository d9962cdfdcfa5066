/** Keys of the card: numbers for lists of pages, by which it finds memory that its driver gave it. */
import { type DmaAddr, PAGE_SIZE } from "../../../../../base/index.ts";
import type { DevicePort } from "../../../device.ts";

export class KeyTable {
  readonly #lists = new Map<number, Float64Array>();
  #next = 1;

  /** Keys that are there. */
  get size(): number {
    return this.#lists.size;
  }

  create(pages: number): number {
    this.#lists.set(this.#next, new Float64Array(pages).fill(-1));
    return this.#next++;
  }

  /** Sets addresses from page `first` on; false if there is no such key, or not so many pages. */
  fill(key: number, first: number, addresses: readonly number[]): boolean {
    const list = this.#lists.get(key);
    if (!list || first + addresses.length > list.length) return false;
    list.set(addresses, first);
    return true;
  }

  destroy(key: number): boolean {
    return this.#lists.delete(key);
  }

  /** Bytes that a key's pages hold; 0 if it is none, or its list is not complete. */
  capacity(key: number): number {
    const list = this.#lists.get(key);
    return list && !list.includes(-1) ? list.length * PAGE_SIZE : 0;
  }

  /** Moves bytes between the card and a key's pages, from byte `offset` on; false if memory refused. Valid within the capacity. */
  move(key: number, offset: number, bytes: Uint8Array, access: "read" | "write", port: DevicePort): boolean {
    const list = this.#lists.get(key)!;
    for (let at = 0; at < bytes.length; ) {
      const inside = (offset + at) % PAGE_SIZE;
      const length = Math.min(PAGE_SIZE - inside, bytes.length - at);
      const address = (list[Math.floor((offset + at) / PAGE_SIZE)]! + inside) as DmaAddr;
      if (!port[access](address, bytes.subarray(at, at + length))) return false;
      at += length;
    }
    return true;
  }
}
