/**
 * The links of one range in a domain: straight into its page table, with the leaf table of the last link remembered.
 *
 * Idea: most links need the table that the one before needed. Entries that are cleared without telling the IOTLB are
 * gathered here until {@link DomainLinks.flush}. It is the cursor itself: a page in the same table reaches it through one object.
 * Not for: whether something may be linked; that is `dma/`.
 */
import type { IovaPage, PhysPage } from "../base/index.ts";
import { Gather, LeafCursor, type PageTable } from "../pagetable/index.ts";
import type { LinkCursor } from "./address-space.ts";
import type { PagingDomain } from "./paging-domain.ts";

/** Made by {@link DmaDomain.openLinks}. */
export class DomainLinks extends LeafCursor implements LinkCursor {
  readonly #domain: PagingDomain;
  readonly #table: PageTable;
  /** Cleared, but maybe still known to the IOTLB: used again and again, so that taking pages away makes no garbage. */
  #gather: Gather | undefined;
  #isStale = false;

  constructor(domain: PagingDomain) {
    super();
    this.#domain = domain;
    this.#table = domain.table;
  }

  mapPages(page: number, frames: Int32Array, count: number, prot: number): number {
    let done = 0;
    while (done < count) {
      done += this.#table.mapPages(page + done, frames, done, count - done, prot, this);
      if (done === count) break;
      // The first page in each table goes the long way, and leaves the table in the cursor.
      const frame = frames[done] as PhysPage;
      if (this.#table.map((page + done) as IovaPage, frame, 1, prot, this) !== 0) break;
      done++;
    }
    return done;
  }

  map(page: IovaPage, phys: PhysPage, pages: number, prot: number): void {
    this.#domain.map(page, phys, pages, prot, this);
  }

  mapRuns(page: IovaPage, physPages: Float64Array, pages: Int32Array, count: number, prot: number): number {
    return this.#domain.mapRuns(page, physPages, pages, count, prot, this);
  }

  unmapLater(page: IovaPage, pages: number): number {
    this.#gather ??= new Gather();
    this.#isStale = true;
    return this.#domain.unmapLater(page, pages, this.#gather);
  }

  flush(): boolean {
    if (!this.#isStale) return false;
    this.#isStale = false;
    this.#domain.invalidate(this.#gather!);
    return true;
  }
}
