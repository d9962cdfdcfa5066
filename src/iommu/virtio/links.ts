/** The links of one range in a domain of a virtio-iommu: each is a mapping, and the requests wait for the sync. */
import type { IovaPage, PhysPage } from "../../base/index.ts";
import type { LinkCursor } from "../address-space.ts";
import type { VirtioPagingDomain } from "./paging-domain.ts";

/** Made by a DMA domain for its ranges. */
export class VirtioLinks implements LinkCursor {
  readonly #domain: VirtioPagingDomain;
  /** Unmapped, and the device may still know it: [first, end). */
  #first = 0;
  #end = 0;

  constructor(domain: VirtioPagingDomain) {
    this.#domain = domain;
  }

  /** There are no tables to write into. */
  mapPage(): boolean {
    return false;
  }

  mapPages(): number {
    return 0;
  }

  map(page: IovaPage, phys: PhysPage, pages: number, prot: number): void {
    this.#domain.map(page, phys, pages, prot);
  }

  mapRuns(page: IovaPage, physPages: Float64Array, pages: Int32Array, count: number, prot: number): number {
    let mapped = 0;
    try {
      for (let i = 0; i < count; i++) {
        this.#domain.map((page + mapped) as IovaPage, physPages[i] as PhysPage, pages[i]!, prot);
        mapped += pages[i]!;
      }
    } catch (error) {
      if (mapped > 0) this.#domain.unmapNow(page, mapped);
      throw error;
    }
    return mapped;
  }

  unmapLater(page: IovaPage, pages: number): number {
    const unmapped = this.#domain.unmapLater(page, pages);
    if (unmapped === 0) return 0;
    if (this.#end === 0 || page < this.#first) this.#first = page;
    if (page + pages > this.#end) this.#end = page + pages;
    return unmapped;
  }

  flush(): boolean {
    if (this.#end === 0) return false;
    this.#domain.invalidate(this.#first as IovaPage, this.#end - this.#first);
    this.#end = 0;
    return true;
  }
}
