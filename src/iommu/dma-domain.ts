/**
 * A DMA domain: a paging domain that also gives out its addresses. What the DMA layer maps into.
 *
 * Idea: three mechanisms must agree: who owns which addresses (the IOVA space), what they reach and what the machine still
 * remembers (the paging domain). Addresses are given back last.
 * Promises: release cannot fail. Strict: when an unmap returns, the device cannot reach the pages any more. Lazy: it cannot
 * once the flush queue has been flushed, and until then nobody gets the address.
 * Not for: choosing how memory is reached (direct, bounced, peer); that is `dma/`.
 * Specified by: behaviour of Linux 7.2 DMA-IOMMU layer.
 */
import type { IovaPage } from "../base/index.ts";
import { type GranuleRange, IovaAllocator, type IovaDevice, IovaSpace } from "../iova/index.ts";
import { FrameList } from "../pagetable/index.ts";
import type { Clock } from "../platform/index.ts";
import type { AddressSpace, LinkCursor } from "./address-space.ts";
import { DomainLinks } from "./domain-links.ts";
import { badMode, domainLacks } from "./errors.ts";
import { checkDomainNumber, PagingDomain, type PagingDomainOptions } from "./paging-domain.ts";

/** What a DMA domain is made of. */
export interface DmaDomainOptions extends PagingDomainOptions {
  /** Tells the flush queue when its time is over. */
  readonly clock: Clock;
  /** `strict`: every unmap invalidates before it returns. `lazy`: ranges wait in a flush queue. */
  readonly mode: "strict" | "lazy";
  /** Last page of the address space. Default: what the format reaches, 2^53 bytes at most. */
  readonly lastPage?: number;
  /** Ranges never given out (interrupt window, bridge windows). Granules, inclusive. */
  readonly reserved?: readonly GranuleRange[];
  /** Count the steps that Linux's allocator would have walked. */
  readonly countSteps?: boolean;
  /** Deviation: granules up to which the allocator caches ranges; default 32 (iova/allocator.ts). */
  readonly largestCached?: number;
  /**
   * A release of addresses that are nobody's, or of more than was reserved, leaves the allocator as it is. Default true; else
   * it gives out addresses twice from then on, as Linux does.
   */
  readonly checked?: boolean;
}

/** IOVAs are safe integers: 53 bits of bytes (docs/decisions/0001-addresses.md). */
const WIDEST_PAGE_BITS = 41;

/** Interrupt messages: a device's write there is no memory access (VT-d specification, 3.14). */
export const INTERRUPT_WINDOW: GranuleRange = { first: 0xfee00, last: 0xfeeff };

/** A paging domain with an allocator of addresses. */
export class DmaDomain extends PagingDomain implements AddressSpace {
  declare readonly mode: "strict" | "lazy";
  readonly #space: IovaSpace<FrameList>;

  /** @throws DmaError ERR_DMA_DOMAIN (EINVAL); ERR_DMA_TABLE_MEMORY (ENOMEM) if there is no room for the top table */
  constructor(options: DmaDomainOptions) {
    checkOptions(options);
    super(options);
    const { layout, clock, mode, observer } = options;
    this.mode = mode;
    const domain = new IovaAllocator({
      granule: this.granule,
      firstGranule: 1,
      cpus: 1,
      currentCpu: () => 0,
      clock,
      counters: this.counters,
      countSteps: options.countSteps ?? false,
      checked: options.checked ?? true,
      ...(options.largestCached !== undefined && { largestCached: options.largestCached }),
    });
    const lastPage = options.lastPage ?? 2 ** Math.min(layout.inputBits - 12, WIDEST_PAGE_BITS) - 1;
    this.#space = new IovaSpace<FrameList>(domain, {
      lastGranule: Math.floor((lastPage + 1) / this.granulePages) - 1,
      observer,
      ...(mode === "lazy" && {
        lazy: {
          clock,
          flushDomain: () => this.invalidateAll(),
          freeTables: (tables: FrameList) => {
            this.counters.tablePagesFreed += tables.release(this.arena);
          },
        },
      }),
    });
    this.#space.join(options.reserved ?? [inGranules(INTERRUPT_WINDOW, this.granulePages)]);
  }

  /** Reserves `pages`, whole granules, below `limitPage`; 0 if there is no room. */
  reserve(pages: number, limitPage: number, device: IovaDevice): IovaPage {
    const per = this.granulePages;
    if (per === 1) return this.#space.allocate(pages, limitPage, device) as IovaPage;
    const limit = Math.floor(limitPage / per);
    return (this.#space.allocate(pages / per, limit, device) * per) as IovaPage;
  }

  /** Where the links of one range go. */
  openLinks(): LinkCursor {
    return new DomainLinks(this);
  }

  /**
   * The end of a mapping: clears [`page`, + `mapped`), and gives [`page`, + `reserved`) back when it is safe: at once in
   * strict mode, after the next flush in lazy mode. Pages cleared.
   */
  release(page: IovaPage, mapped: number, reserved: number): number {
    if (mapped === 0) {
      this.#free(page, reserved);
      return 0;
    }
    if (this.mode === "strict") {
      const unmapped = this.unmapNow(page, mapped);
      this.#free(page, reserved);
      return unmapped;
    }
    const { gather } = this;
    const unmapped = this.unmapLater(page, mapped, gather);
    let waiting: FrameList | undefined;
    if (!gather.leavesOnly) {
      waiting = new FrameList();
      gather.takeTables(waiting);
    }
    gather.reset();
    try {
      this.#space.queue(page / this.granulePages, reserved / this.granulePages, waiting);
    } catch {
      waiting?.release(this.arena); // as in #free
    }
    return unmapped;
  }

  /**
   * As {@link release} for a range in which not everything is mapped: what is mapped of [`first`, + `span`) is cleared, with
   * one invalidation for all of it, in lazy mode too.
   */
  releaseSparse(first: IovaPage, span: number, page: IovaPage, reserved: number): number {
    const unmapped = this.unmapSparse(first, span);
    this.#free(page, reserved);
    return unmapped;
  }

  /** The domain ends: nothing is attached any more, everything queued is freed. */
  override destroy(): void {
    this.invalidateAll();
    this.#space.drain();
    this.table.destroy();
  }

  #free(page: IovaPage, reserved: number): void {
    try {
      this.#space.free(page / this.granulePages, reserved / this.granulePages);
    } catch {
      // A release of what is nobody's, or of more than was reserved: the allocator changed nothing, and release cannot fail.
    }
  }
}

/** Pages, inclusive, as the granules that hold them. */
const inGranules = ({ first: lo, last: hi }: GranuleRange, granulePages: number): GranuleRange => ({
  first: Math.floor(lo / granulePages),
  last: Math.floor(hi / granulePages),
});

/** @throws DmaError ERR_DMA_DOMAIN (EINVAL) */
function checkOptions(options: DmaDomainOptions): void {
  const clock: unknown = (options as DmaDomainOptions | undefined)?.clock;
  if (options !== undefined && (typeof clock !== "object" || clock === null)) throw domainLacks("clock", clock);
  const { mode, lastPage = 1 } = options ?? {};
  if (options !== undefined && mode !== "strict" && mode !== "lazy") throw badMode(mode);
  checkDomainNumber("lastPage", lastPage, 1, Number.MAX_SAFE_INTEGER);
}
