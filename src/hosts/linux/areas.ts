/**
 * What is mapped in one address space, in order: the kernel unmaps only what was mapped together, so we remember it.
 *
 * Idea: an ordered array; a look-up is a binary search, a change moves what comes after. Ranges are given out from the
 * top down, so most changes are near the start of a short array.
 * Promises: areas never overlap. Not for: addresses that are reserved and not mapped.
 */

/** One mapping. */
export interface Area {
  readonly page: number;
  /** Changeable while the kernel does not know of it. */
  pages: number;
  /** Of the memory: its address / 4096. */
  readonly frame: number;
  readonly prot: number;
  /** The kernel has it; else it waits for a sync. */
  issued: boolean;
}

export class Areas {
  readonly #areas: Area[] = [];

  get count(): number {
    return this.#areas.length;
  }

  /** The place of the first area that ends after `page`. */
  from(page: number): number {
    const areas = this.#areas;
    let low = 0;
    let high = areas.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const { page: start, pages } = areas[middle]!;
      if (start + pages > page) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  /** The area at a place of {@link from}; undefined past the last. */
  at(place: number): Area | undefined {
    return this.#areas[place];
  }

  /** The area that `page` lies in. */
  holding(page: number): Area | undefined {
    const area = this.#areas[this.from(page)];
    return area !== undefined && area.page <= page ? area : undefined;
  }

  /** @param place that of {@link from} for its first page; nothing lies there */
  insert(place: number, area: Area): void {
    this.#areas.splice(place, 0, area);
  }

  /** Takes out the areas [place, end). */
  remove(place: number, end: number): void {
    this.#areas.splice(place, end - place);
  }

  /** All, in order. */
  [Symbol.iterator](): Iterator<Area> {
    return this.#areas[Symbol.iterator]();
  }
}
