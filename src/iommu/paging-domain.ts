/**
 * A paging domain: a page table put to work. The caller chooses the addresses.
 *
 * Idea: it joins the two mechanisms that must agree: what addresses reach (the page table), and what the machine still
 * remembers (the IOTLB). Order is everything: clear the entries, invalidate, and only then give back table pages and memory.
 * Pages are of 4 KiB; a layout with larger granules maps whole granules.
 * Promises: a failed map leaves nothing behind; when an unmap returns, the device cannot reach the pages any more.
 * Not for: choosing addresses; that is {@link DmaDomain}'s, or the user's (VFIO, iommufd).
 * Specified by: behaviour of Linux 7.2 IOMMU core (unmanaged domains).
 */
import { Counters, type IovaPage, type Observer, PAGE_SIZE, type PhysPage } from "../base/index.ts";
import type { TableLayout } from "../layouts/pagetable/index.ts";
import { Arena, Gather, type LeafCursor, PageTable, type TableEvents } from "../pagetable/index.ts";
import type { TranslationTables, TranslationUnit } from "../platform/index.ts";
import { badDomainNumber, dirtyRefused, domainLacks, mapRefused, splitRefused } from "./errors.ts";

/** What a paging domain is made of. */
export interface PagingDomainOptions {
  /** The format of its page table. */
  readonly layout: TableLayout;
  /** The IOMMU that walks it. */
  readonly unit: TranslationUnit;
  /** What the unit knows the domain by: 0 to 65535. Default 1. */
  readonly domainId?: number;
  /** Memory for page tables. Default: one of its own. */
  readonly tableMemory?: Arena;
  /** Counted into; counters of its own unless given. */
  readonly counters?: Counters;
  /** Told of each map, unmap and invalidation. */
  readonly observer?: Observer | undefined;
}

/** Where a domain's own table memory lies: 128 TiB, above any RAM and within what every format can point to. */
const TABLE_MEMORY = (2 ** 35) as PhysPage;

/** A page table, the unit that walks it, and what the unit must forget. */
export class PagingDomain {
  /** What the work in it cost. */
  declare readonly counters: Counters;
  /** What its addresses reach. */
  declare readonly table: PageTable;
  /** Bytes of the smallest thing that can be mapped. */
  declare readonly granule: number;
  /** Bits of a physical address that an entry can hold. */
  declare readonly outputBits: number;
  /** Pages of 4 KiB in a granule. */
  declare protected readonly granulePages: number;
  /** Where its table pages come from. */
  declare protected readonly arena: Arena;
  /** What is to be invalidated, while an unmap goes on; used again by the next. */
  declare protected readonly gather: Gather;
  readonly #unit: TranslationUnit;
  readonly #domainId: number;
  readonly #observer: Observer | undefined;

  /** @throws DmaError ERR_DMA_DOMAIN (EINVAL); ERR_DMA_TABLE_MEMORY (ENOMEM) if there is no room for the top table */
  constructor(options: PagingDomainOptions) {
    checkOptions(options);
    const { layout, unit, observer } = options;
    this.counters = options.counters ?? new Counters();
    this.granulePages = 1 << layout.granuleLg;
    this.granule = (this.granulePages * PAGE_SIZE) | 0;
    this.outputBits = layout.outputBits;
    this.gather = new Gather();
    this.#unit = unit;
    this.#domainId = options.domainId ?? 1;
    this.#observer = observer;
    this.arena = options.tableMemory ?? new Arena({ basePage: TABLE_MEMORY });
    const events: TableEvents = {
      sync: (gather) => this.#issue(gather), // a large leaf took the place of tables: pointers to them may be cached
      flushWalk: (iova, pages) =>
        this.#unit.invalidateRange(this.#domainId, iova as IovaPage, (iova + pages) as IovaPage, false),
    };
    this.table = new PageTable({ layout, memory: this.arena, counters: this.counters, events });
  }

  /** What the machine needs to translate for this domain. */
  get tables(): TranslationTables {
    const { table } = this;
    return {
      domainId: this.#domainId,
      layout: table.layout,
      memory: this.arena,
      root: () => table.root,
      topLevel: () => table.topLevel,
    };
  }

  /** Table pages in use. */
  get tablePages(): number {
    return this.arena.framesInUse;
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
    const { gather } = this;
    const unmapped = this.unmapLater(page, pages, gather);
    this.invalidate(gather);
    return unmapped;
  }

  /**
   * Clears what is mapped of [`first`, + `span`), of which not everything is, and invalidates before it returns: one
   * invalidation for all of it. Pages cleared.
   */
  unmapSparse(first: IovaPage, span: number): number {
    const { gather } = this;
    const end = first + span;
    let unmapped = 0;
    for (let at: number = first; at < end; ) {
      if (this.table.lookup(at as IovaPage) < 0) at += this.granulePages;
      else {
        const pages = this.unmapLater(at as IovaPage, end - at, gather);
        unmapped += pages;
        at += Math.max(pages, this.granulePages);
      }
    }
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

  /**
   * No leaf reaches over the beginning of `page` when this returns: the one that does becomes the largest that do not, with the same
   * translations.
   *
   * Cost: a walk and an invalidation for each size on the way down; memory for a table each.
   * @throws DmaError ERR_DMA_SPLIT (ENOMEM); all translations are as before
   */
  splitAt(page: IovaPage): void {
    const sizes = this.table.layout.leafSizes.map((lg) => 2 ** lg);
    for (;;) {
      const leaf = this.table.translate(page);
      if (!leaf || leaf.leafStart === page) return;
      this.#split(page, Math.max(...sizes.filter((pages) => pages < leaf.leafPages)));
    }
  }

  #split(page: IovaPage, leafPages: number = this.granulePages): void {
    const { gather } = this;
    const error = this.table.split(page, leafPages, gather);
    if (error !== 0) throw splitRefused(error, page);
    this.invalidate(gather);
  }

  /**
   * Calls `report` for every leaf of [`page`, + `pages`) that the device wrote to, with the pages from where the range meets
   * it to the leaf's end. With `clear` they are clean when this returns, and the IOTLB has forgotten them: a write after it
   * marks them again.
   *
   * Cost: a walk per leaf or hole; with `clear` one invalidation.
   * @throws DmaError ERR_DMA_DIRTY (EOPNOTSUPP: the format has no dirty bits; ERANGE, EINVAL)
   */
  readDirty(page: IovaPage, pages: number, clear: boolean, report: (page: IovaPage, pages: number) => void): void {
    const { gather } = this;
    const error = this.table.readDirty(page, pages, clear, gather, report);
    this.invalidate(gather);
    if (error !== 0) throw dirtyRefused(error, page, pages, this.table.layout.name);
  }

  /** Everything of the domain is forgotten by the unit. */
  invalidateAll(): void {
    this.counters.domainInvalidations++;
    this.#observer?.domainInvalidated?.();
    this.#unit.invalidateDomain(this.#domainId);
  }

  /** The domain ends, with all that is mapped: nothing may be attached to it any more. */
  destroy(): void {
    this.invalidateAll();
    this.table.destroy();
  }

  /** Issues what was gathered, and gives back the table pages that nobody can reach any more. */
  invalidate(gather: Gather): void {
    this.#issue(gather);
    this.table.complete(gather);
  }

  /** Clears entries and notes in `gather` what has to be invalidated: the caller does that, by {@link invalidate}. Pages. */
  unmapLater(page: IovaPage, pages: number, gather: Gather): number {
    const unmapped = this.table.unmap(page, pages, gather);
    if (this.#observer !== undefined)
      this.#observer.unmapped?.(page * PAGE_SIZE, pages * PAGE_SIZE, unmapped * PAGE_SIZE);
    return unmapped;
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
}

/** Domain numbers are of 16 bits in the formats of every vendor. */
const LAST_DOMAIN_ID = 0xffff;

/** @throws DmaError ERR_DMA_DOMAIN (EINVAL) */
function checkOptions(options: PagingDomainOptions): void {
  for (const part of ["layout", "unit"] as const) {
    const value = (options as PagingDomainOptions | undefined)?.[part];
    if (typeof value !== "object" || value === null) throw domainLacks(part, value);
  }
  checkDomainNumber("domainId", options.domainId ?? 1, 0, LAST_DOMAIN_ID);
}

/** @throws DmaError ERR_DMA_DOMAIN (EINVAL) */
export function checkDomainNumber(name: string, value: number, least: number, most: number): void {
  if (!(Number.isInteger(value) && value >= least && value <= most)) throw badDomainNumber(name, value, least, most);
}
