/**
 * The mappings of one domain, in order of their addresses: what stands for the page table where the device has none.
 *
 * Idea: a sorted list. Mappings may overlap where nobody refuses that; then the one that begins first is found first, and of
 * two that begin together the older one.
 * Promises: finding is O(log n) while nothing overlaps; adding and removing move what lies behind.
 * Not for: deciding what may be mapped; that is {@link VirtioPagingDomain}'s.
 */
import type { IovaPage, PhysPage } from "../../base/index.ts";

/** Pages that one request maps. */
export interface Mapping {
  readonly page: IovaPage;
  readonly pages: number;
  readonly phys: PhysPage;
  /** As in the request. */
  readonly flags: number;
  /** What the device said of it; `undefined` as long as it has not been asked. */
  status: number | undefined;
}

/** See the head of the file. */
export class Mappings implements Iterable<Mapping> {
  readonly #list: Mapping[] = [];
  /** No mapping has been longer, since there were none. */
  #longest = 0;
  #overlap = false;

  get count(): number {
    return this.#list.length;
  }

  [Symbol.iterator](): IterableIterator<Mapping> {
    return this.#list.values();
  }

  add(mapping: Mapping): void {
    const { page, pages } = mapping;
    if (this.#list.length === 0) {
      this.#longest = 0;
      this.#overlap = false;
    }
    if (!this.#overlap && this.meeting(page, pages) !== undefined) this.#overlap = true;
    if (pages > this.#longest) this.#longest = pages;
    this.#list.splice(this.#firstAfter(page), 0, mapping);
  }

  /** The first mapping that has pages of [`page`, + `pages`); undefined if none has. */
  meeting(page: number, pages: number): Mapping | undefined {
    const list = this.#list;
    // While nothing overlaps only the last that begins at or below `page` can reach it.
    let at = this.#overlap ? this.#firstAfter(page - this.#longest) : Math.max(0, this.#firstAfter(page) - 1);
    for (; at < list.length; at++) {
      const mapping = list[at]!;
      if (mapping.page >= page + pages) return undefined;
      if (mapping.page + mapping.pages > page) return mapping;
    }
    return undefined;
  }

  remove(mapping: Mapping): void {
    let at = this.#firstAfter(mapping.page) - 1;
    while (this.#list[at] !== mapping) at--;
    this.#list.splice(at, 1);
  }

  clear(): void {
    this.#list.length = 0;
  }

  /** Place of the first mapping that begins after `page`. */
  #firstAfter(page: number): number {
    let [low, high] = [0, this.#list.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#list[middle]!.page > page) high = middle;
      else low = middle + 1;
    }
    return low;
  }
}
