/**
 * An IOMMU domain: one I/O address space, put to work.
 *
 * Idea: it joins the three mechanisms that must agree: who owns which addresses (the IOVA space), what they reach (the
 * page table), and what the machine still remembers (the IOTLB). Order is everything: clear the entries, invalidate,
 * and only then give back addresses, table pages and memory.
 * Promises: a failed map leaves nothing behind; release cannot fail. Strict: when an unmap returns, the device cannot
 * reach the pages any more. Lazy: it cannot once the flush queue has been flushed, and until then nobody gets the address.
 * Not for: choosing how memory is reached (direct, bounced, peer); that is `dma/`.
 * Specified by: behaviour of Linux 7.2 IOMMU core and DMA-IOMMU layer.
 */
import { Counters, type IovaPage, type PhysPage } from "../base/index.ts";
import { type IovaDevice, IovaDomain, IovaSpace, type PfnRange } from "../iova/index.ts";
import type { TableLayout } from "../layouts/pagetable/index.ts";
import { Arena, Gather, type LeafCursor, PageTable, TableList } from "../pagetable/index.ts";
import type { Clock, TranslationTables, TranslationUnit } from "../platform/index.ts";
import { badMode, mapRefused } from "./errors.ts";

export interface DomainOptions {
  readonly layout: TableLayout;
  readonly unit: TranslationUnit;
  readonly clock: Clock;
  /** `strict`: every unmap invalidates before it returns. `lazy`: ranges wait in a flush queue. */
  readonly mode: "strict" | "lazy";
  readonly domainId?: number;
  /** Memory for page tables; one of its own if not given. */
  readonly tableMemory?: Arena;
  readonly counters?: Counters;
  /** Last page of the address space. */
  readonly lastPage?: number;
  /** Ranges never given out (interrupt window, bridge windows). Pages, inclusive. */
  readonly reserved?: readonly PfnRange[];
  /** Count the steps that Linux's allocator would have walked. */
  readonly countSteps?: boolean;
}

/** Where a domain's own table memory lies: 128 TiB, above any RAM and within what every format can point to. */
const TABLE_MEMORY = (2 ** 35) as PhysPage;
/** IOVAs are safe integers: 53 bits of bytes (docs/decisions/0001-addresses.md). */
const WIDEST_PAGE_BITS = 41;

/** Interrupt messages: a device's write there is no memory access (VT-d specification, 3.14). */
export const INTERRUPT_WINDOW: PfnRange = { lo: 0xfee00, hi: 0xfeeff };

export class IommuDomain {
  declare readonly counters: Counters; // "declare": a defined field holds undefined first, and is slower ever after
  declare readonly table: PageTable;
  declare readonly mode: "strict" | "lazy";
  readonly #space: IovaSpace<TableList>;
  readonly #arena: Arena;
  readonly #gather = new Gather();
  readonly #unit: TranslationUnit;
  readonly #domainId: number;

  /** @throws DmaError ERR_DMA_DOMAIN (EINVAL); ERR_DMA_TABLE_MEMORY (ENOMEM) if there is no room for the top table */
  constructor(options: DomainOptions) {
    const { layout, unit, clock, mode } = options;
    if (mode !== "strict" && mode !== "lazy") throw badMode(mode);
    this.counters = options.counters ?? new Counters();
    this.mode = mode;
    this.#unit = unit;
    this.#domainId = options.domainId ?? 1;
    this.#arena = options.tableMemory ?? new Arena({ basePage: TABLE_MEMORY });
    this.table = new PageTable({ layout, memory: this.#arena, counters: this.counters });
    const domain = new IovaDomain({
      granule: 4096,
      startPfn: 1,
      cpus: 1,
      currentCpu: () => 0,
      clock,
      counters: this.counters,
      countSteps: options.countSteps ?? false,
    });
    this.#space = new IovaSpace<TableList>(domain, {
      aperturePfn: options.lastPage ?? 2 ** Math.min(layout.inputBits - 12, WIDEST_PAGE_BITS) - 1,
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
    this.#space.join(options.reserved ?? [INTERRUPT_WINDOW]);
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

  /** Reserves `pages` below `limitPage`; 0 if there is no room. */
  reserve(pages: number, limitPage: number, device: IovaDevice): IovaPage {
    return this.#space.allocate(pages, limitPage, device) as IovaPage;
  }

  /**
   * Makes `pages` from `page` reach physical memory from `phys` on. Not promised to the device before {@link sync}.
   *
   * @throws DmaError ERR_DMA_MAP (EADDRINUSE, ERANGE, ENXIO, EINVAL, ENOMEM); nothing is mapped then
   */
  map(page: IovaPage, phys: PhysPage, pages: number, prot: number, cursor?: LeafCursor): void {
    const error = this.table.map(page, phys, pages, prot, cursor);
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
    if (error !== 0) this.#refuse(error, page, physPages[0] as PhysPage, count);
    return this.table.mappedPages;
  }

  /** New entries become visible: needed once after the last map and before the device is told. */
  sync(page: IovaPage, pages: number): void {
    this.counters.mapSyncs++;
    if (this.#unit.syncMap(this.#domainId, page, (page + pages) as IovaPage)) this.counters.rangeInvalidations++;
  }

  /** Clears entries and invalidates before it returns, in lazy mode too. The addresses stay reserved. Pages cleared. */
  unmapNow(page: IovaPage, pages: number): number {
    const gather = this.#gather;
    const unmapped = this.table.unmap(page, pages, gather);
    if (gather.pending) {
      this.counters.rangeInvalidations++;
      this.#unit.invalidateRange(this.#domainId, gather.start as IovaPage, gather.end as IovaPage, gather.leavesOnly);
    }
    this.table.complete(gather);
    return unmapped;
  }

  /**
   * The end of a mapping: clears [`page`, + `mapped`), and gives [`page`, + `reserved`) back when it is safe: at once in
   * strict mode, after the next flush in lazy mode. Pages cleared.
   */
  release(page: IovaPage, mapped: number, reserved: number): number {
    if (mapped === 0) {
      this.#space.free(page, reserved);
      return 0;
    }
    if (this.mode === "strict") {
      const unmapped = this.unmapNow(page, mapped);
      this.#space.free(page, reserved);
      return unmapped;
    }
    const gather = this.#gather;
    const unmapped = this.table.unmap(page, mapped, gather);
    let waiting: TableList | undefined;
    if (!gather.leavesOnly) {
      waiting = new TableList();
      gather.takeTables(waiting);
    }
    gather.reset();
    this.#space.queue(page, reserved, waiting);
    return unmapped;
  }

  /** The domain ends: nothing is attached any more, everything queued is freed. */
  destroy(): void {
    this.#flushDomain();
    this.#space.drain();
    this.table.destroy();
  }

  /** Undoes what a failed map left, and says why it failed. */
  #refuse(error: number, page: IovaPage, phys: PhysPage, pages: number): never {
    const { mappedPages } = this.table;
    if (mappedPages > 0) this.unmapNow(page, mappedPages);
    throw mapRefused(error, { page, phys, pages, mappedPages });
  }

  #flushDomain(): void {
    this.counters.domainInvalidations++;
    this.#unit.invalidateDomain(this.#domainId);
  }
}
