/**
 * An IOMMU domain: one I/O address space, put to work.
 *
 * Idea: it joins the three mechanisms that must agree: who owns which addresses (the IOVA space), what they reach (the
 * page table), and what the machine still remembers (the IOTLB). Order is everything: clear the entries, invalidate,
 * and only then give back addresses, table pages and memory.
 * Pages are of 4 KiB; a layout with larger granules gives out and maps whole granules.
 * Promises: a failed map leaves nothing behind; release cannot fail. Strict: when an unmap returns, the device cannot
 * reach the pages any more. Lazy: it cannot once the flush queue has been flushed, and until then nobody gets the address.
 * Not for: choosing how memory is reached (direct, bounced, peer); that is `dma/`.
 * Specified by: behaviour of Linux 7.2 IOMMU core and DMA-IOMMU layer.
 */
import { Counters, type IovaPage, type Observer, PAGE_SIZE, type PhysPage } from "../base/index.ts";
import { type IovaDevice, IovaDomain, IovaSpace, type PfnRange } from "../iova/index.ts";
import type { TableLayout } from "../layouts/pagetable/index.ts";
import { Arena, Gather, type LeafCursor, PageTable, type TableEvents, TableList } from "../pagetable/index.ts";
import type { Clock, TranslationTables, TranslationUnit } from "../platform/index.ts";
import type { AddressSpace } from "./address-space.ts";
import { badDomainNumber, badMode, domainLacks, mapRefused, splitRefused } from "./errors.ts";

export interface DomainOptions {
  readonly layout: TableLayout;
  readonly unit: TranslationUnit;
  readonly clock: Clock;
  /** `strict`: every unmap invalidates before it returns. `lazy`: ranges wait in a flush queue. */
  readonly mode: "strict" | "lazy";
  /** What the unit knows the domain by: 0 to 65535; 1 unless said. */
  readonly domainId?: number;
  /** Memory for page tables; one of its own if not given. */
  readonly tableMemory?: Arena;
  readonly counters?: Counters;
  readonly observer?: Observer | undefined;
  /** Last page of the address space. */
  readonly lastPage?: number;
  /** Ranges never given out (interrupt window, bridge windows). Granules, inclusive. */
  readonly reserved?: readonly PfnRange[];
  /** Count the steps that Linux's allocator would have walked. */
  readonly countSteps?: boolean;
  /** Deviation: granules up to which the allocator caches ranges; 32 unless said (iova/domain.ts). */
  readonly largestCached?: number;
  /**
   * A release of addresses that are nobody's, or of more than was reserved, leaves the allocator as it is. On unless said;
   * off, it gives out addresses twice from then on, as Linux does.
   */
  readonly checked?: boolean;
}

/** Where a domain's own table memory lies: 128 TiB, above any RAM and within what every format can point to. */
const TABLE_MEMORY = (2 ** 35) as PhysPage;
/** IOVAs are safe integers: 53 bits of bytes (docs/decisions/0001-addresses.md). */
const WIDEST_PAGE_BITS = 41;

/** Interrupt messages: a device's write there is no memory access (VT-d specification, 3.14). */
export const INTERRUPT_WINDOW: PfnRange = { lo: 0xfee00, hi: 0xfeeff };

export class IommuDomain implements AddressSpace {
  declare readonly counters: Counters; // "declare": a defined field holds undefined first, and is slower ever after
  declare readonly table: PageTable;
  declare readonly mode: "strict" | "lazy";
  /** Bytes of the smallest thing that can be mapped. */
  declare readonly granule: number;
  readonly #granulePages: number;
  readonly #space: IovaSpace<TableList>;
  readonly #arena: Arena;
  readonly #gather = new Gather();
  readonly #unit: TranslationUnit;
  readonly #domainId: number;
  readonly #observer: Observer | undefined;

  /** @throws DmaError ERR_DMA_DOMAIN (EINVAL); ERR_DMA_TABLE_MEMORY (ENOMEM) if there is no room for the top table */
  constructor(options: DomainOptions) {
    checkOptions(options);
    const { layout, unit, clock, mode, observer } = options;
    if (mode !== "strict" && mode !== "lazy") throw badMode(mode);
    this.counters = options.counters ?? new Counters();
    this.mode = mode;
    this.#granulePages = 1 << layout.granuleLg;
    this.granule = (this.#granulePages * PAGE_SIZE) | 0;
    this.#unit = unit;
    this.#domainId = options.domainId ?? 1;
    this.#observer = observer;
    this.#arena = options.tableMemory ?? new Arena({ basePage: TABLE_MEMORY });
    const events: TableEvents = {
      sync: (gather) => this.#issue(gather), // a large leaf took the place of tables: pointers to them may be cached
      flushWalk: (iova, pages) =>
        this.#unit.invalidateRange(this.#domainId, iova as IovaPage, (iova + pages) as IovaPage, false),
    };
    this.table = new PageTable({ layout, memory: this.#arena, counters: this.counters, events });
    const domain = new IovaDomain({
      granule: this.granule,
      startPfn: 1,
      cpus: 1,
      currentCpu: () => 0,
      clock,
      counters: this.counters,
      countSteps: options.countSteps ?? false,
      checked: options.checked ?? true,
      ...(options.largestCached !== undefined && { largestCached: options.largestCached }),
    });
    const lastPage = options.lastPage ?? 2 ** Math.min(layout.inputBits - 12, WIDEST_PAGE_BITS) - 1;
    this.#space = new IovaSpace<TableList>(domain, {
      aperturePfn: Math.floor((lastPage + 1) / this.#granulePages) - 1,
      observer,
      ...(mode === "lazy" && {
        lazy: {
          clock,
          flushDomain: () => this.#flushDomain(),
          freeTables: (tables: TableList) => {
            this.counters.tablePagesFreed += tables.release(this.#arena);
          },
        },
      }),
    });
    this.#space.join(options.reserved ?? [inGranules(INTERRUPT_WINDOW, this.#granulePages)]);
  }

  /** What the machine needs to translate for this domain. */
  get tables(): TranslationTables {
    const { table } = this;
    return {
      domainId: this.#domainId,
      layout: table.layout,
      memory: this.#arena,
      root: () => table.root,
      topLevel: () => table.topLevel,
    };
  }

  /** Table pages in use. */
  get tablePages(): number {
    return this.#arena.framesInUse;
  }

  /** Reserves `pages`, whole granules, below `limitPage`; 0 if there is no room. */
  reserve(pages: number, limitPage: number, device: IovaDevice): IovaPage {
    const per = this.#granulePages;
    if (per === 1) return this.#space.allocate(pages, limitPage, device) as IovaPage;
    const limit = Math.floor(limitPage / per);
    return (this.#space.allocate(pages / per, limit, device) * per) as IovaPage;
  }

  /**
   * Makes `pages` from `page` reach physical memory from `phys` on. Not promised to the device before {@link sync}.
   *
   * @throws DmaError ERR_DMA_MAP (EADDRINUSE, ERANGE, ENXIO, EINVAL, ENOMEM); nothing is mapped then
   */
  map(page: IovaPage, phys: PhysPage, pages: number, prot: number, cursor?: LeafCursor): void {
    const error = this.table.map(page, phys, pages, prot, cursor);
    if (this.#observer !== undefined) this.#announceMap(page, phys, error === 0 ? pages : this.table.mappedPages, prot);
    if (error !== 0) this.#refuse(error, page, phys, pages);
  }

  /**
   * Makes `count` runs, `physPages[i]` for `pages[i]` pages, reachable one after the other from `page` on. All or nothing.
   * The pages mapped.
   *
   * @throws as {@link map}
   */
  mapRuns(
    page: IovaPage,
    physPages: Float64Array,
    pages: Int32Array,
    count: number,
    prot: number,
    cursor?: LeafCursor,
  ): number {
    const error = this.table.mapRuns(page, physPages, pages, count, prot, cursor);
    const { mappedPages } = this.table;
    if (this.#observer !== undefined) {
      let done = 0;
      for (let i = 0; i < count && (done < mappedPages || i === 0); i++) {
        const run = Math.min(pages[i]!, mappedPages - done);
        this.#announceMap((page + done) as IovaPage, physPages[i] as PhysPage, run, prot);
        done += run;
      }
    }
    if (error !== 0) this.#refuse(error, page, physPages[0] as PhysPage, count);
    return mappedPages;
  }

  /** New entries become visible: needed once after the last map and before the device is told. */
  sync(page: IovaPage, pages: number): void {
    this.counters.mapSyncs++;
    if (this.#observer !== undefined) this.#observer.mapSynced?.(page * PAGE_SIZE, pages * PAGE_SIZE);
    if (this.#unit.syncMap(this.#domainId, page, (page + pages) as IovaPage)) this.counters.rangeInvalidations++;
  }

  /** The physical page that `page` reaches; -1 if none. One walk of the table. */
  lookup(page: IovaPage): PhysPage | -1 {
    return this.table.lookup(page);
  }

  /** Clears entries and invalidates before it returns, in lazy mode too. The addresses stay reserved. Pages cleared. */
  unmapNow(page: IovaPage, pages: number): number {
    const gather = this.#gather;
    const unmapped = this.#clear(page, pages, gather);
    this.invalidate(gather);
    return unmapped;
  }

  /**
   * Leaves that reach out of [`page`, + `pages`) at either end become smaller ones with the same translations, so that it can
   * be cleared alone.
   *
   * Cost: two walks; for each leaf that is split an invalidation, and memory for its table.
   * @throws DmaError ERR_DMA_SPLIT (ENOMEM); all translations are as before
   */
  isolate(page: IovaPage, pages: number): void {
    const last = (page + pages - 1) as IovaPage;
    const [head, tail] = [this.table.translate(page), this.table.translate(last)];
    if (head && head.leafStart < page) this.#split(page);
    if (tail && tail.leafStart + tail.leafPages - 1 > last) this.#split(last);
  }

  #split(page: IovaPage): void {
    const gather = this.#gather;
    const error = this.table.split(page, this.#granulePages, gather);
    if (error !== 0) throw splitRefused(error, page);
    this.invalidate(gather);
  }

  /** Clears entries and notes in `gather` what has to be invalidated: the caller does that, by {@link invalidate}. */
  unmapLater(page: IovaPage, pages: number, gather: Gather): number {
    return this.#clear(page, pages, gather);
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
    const gather = this.#gather;
    const unmapped = this.#clear(page, mapped, gather);
    let waiting: TableList | undefined;
    if (!gather.leavesOnly) {
      waiting = new TableList();
      gather.takeTables(waiting);
    }
    gather.reset();
    try {
      this.#space.queue(page / this.#granulePages, reserved / this.#granulePages, waiting);
    } catch {
      waiting?.release(this.#arena); // as in #free
    }
    return unmapped;
  }

  /**
   * As {@link release} for a range in which not everything is mapped: what is mapped of [`first`, + `span`) is cleared, with
   * one invalidation for all of it, in lazy mode too.
   */
  releaseSparse(first: IovaPage, span: number, page: IovaPage, reserved: number): number {
    const gather = this.#gather;
    const end = first + span;
    let unmapped = 0;
    for (let at: number = first; at < end; ) {
      if (this.table.lookup(at as IovaPage) < 0) at += this.#granulePages;
      else {
        const pages = this.#clear(at as IovaPage, end - at, gather);
        unmapped += pages;
        at += Math.max(pages, this.#granulePages);
      }
    }
    this.invalidate(gather);
    this.#free(page, reserved);
    return unmapped;
  }

  /** The domain ends: nothing is attached any more, everything queued is freed. */
  destroy(): void {
    this.#flushDomain();
    this.#space.drain();
    this.table.destroy();
  }

  #free(page: IovaPage, reserved: number): void {
    try {
      this.#space.free(page / this.#granulePages, reserved / this.#granulePages);
    } catch {
      // A release of what is nobody's, or of more than was reserved: the allocator changed nothing, and release cannot fail.
    }
  }

  #clear(page: IovaPage, pages: number, gather: Gather): number {
    const unmapped = this.table.unmap(page, pages, gather);
    if (this.#observer !== undefined)
      this.#observer.unmapped?.(page * PAGE_SIZE, pages * PAGE_SIZE, unmapped * PAGE_SIZE);
    return unmapped;
  }

  /** Issues what was gathered, and gives back the table pages that nobody can reach any more. */
  invalidate(gather: Gather): void {
    this.#issue(gather);
    this.table.complete(gather);
  }

  #issue(gather: Gather): void {
    if (!gather.pending) return;
    this.counters.rangeInvalidations++;
    const { start, end, leavesOnly } = gather;
    if (this.#observer !== undefined) this.#observer.iotlbSynced?.(start * PAGE_SIZE, end * PAGE_SIZE - 1, leavesOnly);
    this.#unit.invalidateRange(this.#domainId, start as IovaPage, end as IovaPage, leavesOnly);
  }

  #announceMap(page: IovaPage, phys: PhysPage, pages: number, prot: number): void {
    this.#observer?.mapped?.(page * PAGE_SIZE, phys * PAGE_SIZE, pages * PAGE_SIZE, prot);
  }

  /** Undoes what a failed map left, and says why it failed. */
  #refuse(error: number, page: IovaPage, phys: PhysPage, pages: number): never {
    const { mappedPages } = this.table;
    if (mappedPages > 0) this.unmapNow(page, mappedPages);
    else this.#observer?.unmapped?.(page * PAGE_SIZE, 0, 0);
    throw mapRefused(error, { page, phys, pages, mappedPages });
  }

  #flushDomain(): void {
    this.counters.domainInvalidations++;
    this.#observer?.domainInvalidated?.();
    this.#unit.invalidateDomain(this.#domainId);
  }
}

/** Pages, inclusive, as the granules that hold them. */
const inGranules = ({ lo, hi }: PfnRange, granulePages: number): PfnRange => ({
  lo: Math.floor(lo / granulePages),
  hi: Math.floor(hi / granulePages),
});

/** Domain numbers are of 16 bits in the formats of every vendor. */
const LAST_DOMAIN_ID = 0xffff;

/** @throws DmaError ERR_DMA_DOMAIN (EINVAL) */
function checkOptions(options: DomainOptions): void {
  for (const part of ["layout", "unit", "clock"] as const) {
    const value = (options as DomainOptions | undefined)?.[part];
    if (typeof value !== "object" || value === null) throw domainLacks(part, value);
  }
  const { domainId = 1, lastPage = 1 } = options;
  checkNumber("domainId", domainId, 0, LAST_DOMAIN_ID);
  checkNumber("lastPage", lastPage, 1, Number.MAX_SAFE_INTEGER);
}

function checkNumber(name: string, value: number, least: number, most: number): void {
  if (!(Number.isInteger(value) && value >= least && value <= most)) throw badDomainNumber(name, value, least, most);
}
