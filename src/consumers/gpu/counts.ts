/**
 * What one address space of a GPU has cost, beside the counters of its tables and of the IOMMU.
 *
 * The waste is counted by page: a page that was dropped though nothing happened to it, and that is linked again later, was linked in vain.
 */
import { PAGE_SIZE } from "../../base/index.ts";

/** Counts of an address space, since it was made. */
export class SpaceCounts {
  /** Page faults that were dealt with. */
  faults = 0;
  /** Rounds that began again because memory changed meanwhile. */
  retries = 0;
  /** Pages that were mapped for the bus. */
  linkedPages = 0;
  /** Pages taken away, for whatever reason. */
  droppedPages = 0;
  /** Of {@link droppedPages}: those that the change did not touch. */
  bystanderPages = 0;
  /** Bytes linked again though nothing had happened to the page since it was linked before. */
  relinkedBytes = 0;
  /** Larger entries of the IOMMU that could not be split, so that neighbours went too. */
  widened = 0;
  /** Address space could not be had, and pages are mapped one by one. */
  fellBack = 0;
  /** Changes of the process that were heard. */
  invalidations = 0;
  /** Pages that moved into the GPU's memory for this space, and bytes of scratch memory that took (40 a page). */
  migratedIn = 0;
  scratchBytes = 0;
  /** Pages of the process that were dropped as bystanders and are not back yet. */
  readonly #bystanders = new Set<number>();

  /** Bytes reserved are not here: they are a property of now (`reservedBytes` of a backing). */
  linked(page: number): void {
    this.linkedPages++;
    if (this.#bystanders.delete(page)) this.relinkedBytes += PAGE_SIZE;
  }

  /** A page of the process, by number, was dropped. */
  dropped(page: number, isBystander: boolean): void {
    this.droppedPages++;
    if (isBystander) {
      this.bystanderPages++;
      this.#bystanders.add(page);
    } else this.#bystanders.delete(page);
  }

  /** A change touched pages [first, end) of the process: linking them again is not in vain. */
  touched(first: number, end: number): void {
    if (this.#bystanders.size === 0) return;
    if (end - first > this.#bystanders.size) {
      for (const page of this.#bystanders) if (page >= first && page < end) this.#bystanders.delete(page);
    } else for (let page = first; page < end; page++) this.#bystanders.delete(page);
  }
}
