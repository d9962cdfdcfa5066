/**
 * A cache of translations: what an IOTLB or a device TLB holds for one address space.
 *
 * Idea: an entry covers a whole leaf (2^lg pages) and lives until it is invalidated, whatever became of the tables. A
 * part of a leaf cannot be forgotten: an invalidation that touches it takes all of it.
 */
import type { PhysPage } from "../../../../base/index.ts";

export interface Cached {
  /** Where the leaf's first page goes. */
  readonly page: PhysPage;
  /** READ and WRITE; neither: remembered as absent. */
  readonly prot: number;
  readonly lg: number;
}

export class TranslationCache {
  /** By lg: entries by the number of their block. */
  readonly #bySize = new Map<number, Map<number, Cached>>();

  get(page: number): Cached | undefined {
    for (const [lg, blocks] of this.#bySize) {
      const found = blocks.get(Math.floor(page / 2 ** lg));
      if (found) return found;
    }
    return undefined;
  }

  set(page: number, entry: Cached): void {
    let blocks = this.#bySize.get(entry.lg);
    if (!blocks) {
      blocks = new Map();
      this.#bySize.set(entry.lg, blocks);
    }
    blocks.set(Math.floor(page / 2 ** entry.lg), entry);
  }

  /** Forgets what covers any of pages [start, end). */
  forget(start: number, end: number): void {
    for (const [lg, blocks] of this.#bySize) {
      const size = 2 ** lg;
      const first = Math.floor(start / size);
      const last = Math.floor((end - 1) / size);
      if (last - first >= blocks.size) {
        for (const block of blocks.keys()) if (block >= first && block <= last) blocks.delete(block);
      } else for (let block = first; block <= last; block++) blocks.delete(block);
    }
  }

  get size(): number {
    let size = 0;
    for (const blocks of this.#bySize.values()) size += blocks.size;
    return size;
  }

  /** Every entry with the first page that it covers. */
  *entries(): IterableIterator<[page: number, entry: Cached]> {
    for (const [lg, blocks] of this.#bySize) for (const [block, entry] of blocks) yield [block * 2 ** lg, entry];
  }
}
