/**
 * A DMA domain of a virtio-iommu: a paging domain that also gives out its addresses. What the DMA layer maps into.
 *
 * Promises: release cannot fail. Strict: when an unmap returns, the device cannot reach the pages any more. Lazy: it cannot
 * once the flush queue has been flushed, and until then nobody gets the address.
 * Specified by: behaviour of Linux 7.2 DMA-IOMMU layer, judged by test/golden/dma-api.
 */
import type { IovaPage } from "../../base/index.ts";
import { type GranuleRange, IovaAllocator, type IovaDevice, IovaSpace } from "../../iova/index.ts";
import type { Clock } from "../../platform/index.ts";
import type { AddressSpace, LinkCursor } from "../address-space.ts";
import { badMode, domainLacks } from "../errors.ts";
import { VirtioLinks } from "./links.ts";
import { VirtioPagingDomain, type VirtioPagingOptions } from "./paging-domain.ts";

/** What a DMA domain of a virtio-iommu is made of. */
export interface VirtioDmaDomainOptions extends VirtioPagingOptions {
  /** Tells the flush queue when its time is over. */
  readonly clock: Clock;
  /** `strict`: an unmap is done when it returns. `lazy`: unmapped ranges wait in a flush queue. */
  readonly mode: "strict" | "lazy";
  /** Last page of the address space. Default: what the device translates, 2^53 bytes at most. */
  readonly lastPage?: number;
  /** Ranges never given out (interrupt window, bridge windows). Granules, inclusive. Default: none. */
  readonly reserved?: readonly GranuleRange[];
  /**
   * A release of addresses that are nobody's, or of more than was reserved, leaves the allocator as it is. Default true; else
   * it gives out addresses twice from then on, as Linux does.
   */
  readonly checked?: boolean;
}

/** IOVAs are safe integers: 53 bits of bytes (docs/decisions/0001-addresses.md). */
const WIDEST_PAGE_BITS = 41;

/** See the head of the file. */
export class VirtioDmaDomain extends VirtioPagingDomain implements AddressSpace {
  readonly mode: "strict" | "lazy";
  readonly #space: IovaSpace;

  /** @throws DmaError ERR_DMA_DOMAIN (EINVAL) */
  constructor(options: VirtioDmaDomainOptions) {
    const { unit, clock, mode, observer } = options;
    if (typeof clock !== "object" || clock === null) throw domainLacks("clock", clock);
    if (mode !== "strict" && mode !== "lazy") throw badMode(mode);
    super(options);
    this.mode = mode;
    const { lastPage } = unit.config;
    const allocator = new IovaAllocator({
      granule: this.granule,
      firstGranule: 1,
      cpus: 1,
      currentCpu: () => 0,
      clock,
      counters: this.counters,
      checked: options.checked ?? true,
    });
    const end = Math.min(options.lastPage ?? lastPage, lastPage, 2 ** WIDEST_PAGE_BITS - 1) + 1;
    this.#space = new IovaSpace(allocator, {
      lastGranule: Math.floor(end / this.granulePages) - 1,
      observer,
      ...(mode === "lazy" && { lazy: { clock, flushDomain: () => this.invalidateAll(), freeTables: () => {} } }),
    });
    this.#space.join(options.reserved ?? []);
  }

  /** Reserves `pages`, whole granules, below `limitPage`; 0 if there is no room. */
  reserve(pages: number, limitPage: number, device: IovaDevice): IovaPage {
    const per = this.granulePages;
    return (this.#space.allocate(pages / per, Math.floor(limitPage / per), device) * per) as IovaPage;
  }

  /** Links go where every map goes. */
  openLinks(): LinkCursor {
    return new VirtioLinks(this);
  }

  /** Unmaps the first `mapped` pages and gives `reserved` back when it is safe. Pages unmapped. Cannot fail. */
  release(page: IovaPage, mapped: number, reserved: number): number {
    if (mapped === 0 || this.mode === "strict") {
      const unmapped = mapped === 0 ? 0 : this.unmapNow(page, mapped);
      this.#free(page, reserved);
      return unmapped;
    }
    const unmapped = this.unmapLater(page, mapped);
    try {
      this.#space.queue(page / this.granulePages, reserved / this.granulePages);
    } catch {
      // as in #free
    }
    return unmapped;
  }

  /** The same where not everything of [`first`, + `span`) is mapped. */
  releaseSparse(first: IovaPage, span: number, page: IovaPage, reserved: number): number {
    const unmapped = this.unmapSparse(first, span);
    this.#free(page, reserved);
    return unmapped;
  }

  /** The domain ends, with all that is mapped: everything queued is freed, and nothing may be attached any more. */
  override destroy(): void {
    super.destroy();
    this.#space.drain();
  }

  #free(page: IovaPage, reserved: number): void {
    try {
      this.#space.free(page / this.granulePages, reserved / this.granulePages);
    } catch {
      // A release of what is nobody's, or of more than was reserved: the allocator changed nothing, and release cannot fail.
    }
  }
}
