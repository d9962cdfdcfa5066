/**
 * The IOMMU of a machine, as the stack drives it: attach a device to tables, and tell it what to forget.
 *
 * The stack writes page tables into {@link TableMemory}; the machine reads them there with its own walk. What the
 * machine has cached stays until it is invalidated, as on hardware.
 */
import type { IovaPage, PhysPage } from "../base/index.ts";
import type { TableLayout } from "../layouts/pagetable/index.ts";
import type { TableMemory } from "./table-memory.ts";

/** The page tables of one domain, as a unit finds them. Root and level are asked anew at each walk: a top may grow. */
export interface TranslationTables {
  readonly domainId: number;
  readonly layout: TableLayout;
  readonly memory: TableMemory;
  root(): PhysPage;
  topLevel(): number;
}

/** Who asks: what a device puts on the bus as its own name (see {@link requesterId}), or a stream id on Arm. */
export type Requester = number;

export interface TranslationUnit {
  /** From now on requests of `requester` are translated by `tables`. */
  attach(requester: Requester, tables: TranslationTables): void;
  /** From now on requests of `requester` are refused. Forgets what was cached for its domain. */
  detach(requester: Requester): void;
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
