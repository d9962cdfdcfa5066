/**
 * What events said that is going to be unmapped: `dma_free`, `dma_unmap_sg`, `dma_iova_unlink` and `dma_iova_destroy` come before their
 * `iommu:unmap`.
 *
 * Idea: the announced runs of pages, by CPU. An `iommu:unmap` inside a run belongs to its announcement; runs of the event's
 * own CPU are searched first, since a task seldom changes its CPU in between. Announcements that no unmap follows are
 * dropped after a while.
 */

/** A run of pages that an event announced the unmap of: of what device, whether it was seen to be mapped, and how much is left. */
interface Announced {
  readonly page: number;
  readonly end: number;
  readonly device: number;
  readonly known: boolean;
  left: number;
}

/** Announcements of one CPU that are remembered: the entries of a list that lie apart, several times over. */
const MOST = 1024;

export class AnnouncedUnmaps {
  /** By CPU, oldest first. */
  readonly #runs: Announced[][] = [];
  #count = 0;

  /** An event on `cpu` says that [page, page + pages) of `device` is going to be unmapped. `known`: it was seen to be mapped. */
  add(cpu: number, page: number, pages: number, device: number, known: boolean): void {
    let own = this.#runs[cpu];
    if (!own) {
      own = [];
      this.#runs[cpu] = own;
    }
    if (own.length === MOST) own.shift();
    else this.#count++;
    own.push({ page, end: page + pages, device, known, left: pages });
  }

  /** The announcement that an unmap of [page, page + pages) on `cpu` follows; `undefined`: none. It is used up by as much. */
  take(cpu: number, page: number, pages: number): Announced | undefined {
    if (this.#count === 0) return undefined;
    const own = this.#runs[cpu];
    const found = own && this.#takeFrom(own, page, pages);
    if (found) return found;
    for (const other of this.#runs) {
      const elsewhere = other && other !== own ? this.#takeFrom(other, page, pages) : undefined;
      if (elsewhere) return elsewhere;
    }
    return undefined;
  }

  #takeFrom(runs: Announced[], page: number, pages: number): Announced | undefined {
    const at = runs.findLastIndex((one) => one.page === page || (one.page < page && page + pages <= one.end));
    const found = runs[at];
    if (!found) return undefined;
    found.left -= pages;
    if (found.left <= 0 || pages === 0) {
      runs.splice(at, 1);
      this.#count--;
    }
    return found;
  }
}
