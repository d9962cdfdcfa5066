/**
 * The IOMMU of a machine, as the stack drives it: attach a device to tables, and tell it what to forget.
 *
 * The stack writes page tables into {@link TableMemory}; the machine reads them there with its own walk. What the
 * machine has cached stays until it is invalidated, as on hardware. What a unit cannot do it does not have: PASIDs, nesting,
 * requests for pages are optional, and whoever needs them asks first.
 */
import type { IovaPage, PhysPage } from "../base/index.ts";
import type { TableLayout } from "../layouts/pagetable/index.ts";
import type { PageRequests } from "./page-requests.ts";
import type { TableMemory } from "./table-memory.ts";

/** The page tables of one domain, as a unit finds them. Root and level are asked anew at each walk: a top may grow. */
export interface TranslationTables {
  /** What the unit knows the domain by. */
  readonly domainId: number;
  /** What its entries mean. */
  readonly layout: TableLayout;
  /** Where its tables lie. */
  readonly memory: TableMemory;
  /** The page of the top table, now. */
  root(): PhysPage;
  /** The level of the top table, now; level 0 holds only leaves. */
  topLevel(): number;
}

/** Who asks: what a device puts on the bus as its own name (segment × 65536 + bus × 256 + device × 8 + function), or a stream id on Arm. */
export type Requester = number;

/** A device that keeps translations of its own (PCIe address translation services). */
export interface AtsTraits {
  /** Invalidations that it takes at once, 1 to 32; 0 means 32. */
  readonly queueDepth: number;
  /** Smallest translation unit, as a power of two of pages; must be 0. */
  readonly stu: number;
  /** Its physical function, if it is a virtual one. */
  readonly physicalFunction?: Requester;
  /** It forgets reliably only when told twice. */
  readonly twice?: boolean;
}

/** What is known of a device when it is attached, and for which of its requests. */
export interface AttachOptions {
  /** Of the requests that are meant; needs {@link TranslationUnit.pasidBits}. Default 0: requests without PASID. */
  readonly pasid?: number;
  /** Of the device; taken from its first attachment. */
  readonly ats?: AtsTraits;
  /** An untrusted device gets no device TLB. Default true. */
  readonly trusted?: boolean;
  /** Bits of the PASIDs that the device can send. Default: those of the unit. */
  readonly pasidBits?: number;
  /** The device may ask for pages ({@link TranslationUnit.pageRequests}); it needs a TLB for that. Default false. */
  readonly pageRequests?: boolean;
}

/** A guest's own tables, as the guest knows them: the stage that a parent's tables translate. */
export interface NestedTables {
  /** The top table, in the guest's own physical pages. */
  readonly table: PhysPage;
  /** 4 or 5, counted as x86 does. */
  readonly levels: number;
}

/** An IOMMU. */
export interface TranslationUnit {
  /** Bits of the PASIDs that it translates by; 0 or undefined: it knows requests without PASID only. */
  readonly pasidBits?: number;
  /** Requests for pages that devices made; undefined: the unit takes none, or no device that may ask is attached yet. */
  readonly pageRequests?: PageRequests | undefined;
  /**
   * From now on requests of `requester`, with the PASID of the options, are translated by `tables`. Requests without PASID
   * may be attached anew while they are attached.
   *
   * @throws DmaError what the unit cannot do; nothing has changed then
   */
  attach(requester: Requester, tables: TranslationTables, options?: AttachOptions): void;
  /** From now on requests of `requester` reach physical memory as they are. @throws as {@link attach} */
  attachPassThrough?(requester: Requester, domainId: number, options?: AttachOptions): void;
  /**
   * From now on requests of `requester` are translated by a guest's tables, whose pointers and results `parent` translates.
   * What is unmapped in the parent is forgotten here too. @throws as {@link attach}
   */
  attachNested?(
    requester: Requester,
    domainId: number,
    nested: NestedTables,
    parent: TranslationTables,
    options?: AttachOptions,
  ): void;
  /** From now on requests of `requester` are refused, with any PASID. Forgets what was cached for it. Cannot fail. */
  detach(requester: Requester): void;
  /** From now on requests of `requester` with this PASID are refused. Cannot fail. */
  detachPasid?(requester: Requester, pasid: number): void;
  /** Forgets translations of pages [start, end) of a domain; with `leavesOnly` cached table pointers may stay. */
  invalidateRange(domainId: number, start: IovaPage, end: IovaPage, leavesOnly: boolean): void;
  /** Forgets everything of a domain. */
  invalidateDomain(domainId: number): void;
  /**
   * Pages [start, end) are newly mapped: a unit that remembers absent entries (caching mode) forgets them; any other
   * does nothing. True if something was invalidated.
   */
  syncMap(domainId: number, start: IovaPage, end: IovaPage): boolean;
}
