/**
 * Table memory: the physical pages that page tables live in, as both of their readers see it.
 *
 * Idea: the stack writes tables, and the IOMMU of the machine walks them by physical page with its own code. An entry
 * is two 32-bit words, never a bigint. The word that makes an entry present (the low one, in every format) is written
 * last and cleared first, so a reader of all 64 bits sees an absent entry or a whole one.
 * Promises: a page given out is zeroed. Not for: memory that devices read and write as data.
 */
import type { PhysPage } from "../base/index.ts";

/**
 * Where page tables and an IOMMU's structures lie: software writes them, the unit reads them. Words are 32 bits, little
 * endian, low before high.
 */
export interface TableMemory {
  /** First physical page; frame n is page `basePage + n`. */
  readonly basePage: PhysPage;
  /** 4 KiB frames in use. */
  readonly framesInUse: number;
  /** The low and high 32 bits of entry `index` of the table at `table`, as signed numbers; 0 outside of memory. */
  low(table: PhysPage, index: number): number;
  /** The high 32 bits of the same entry, signed; 0 outside of memory. */
  high(table: PhysPage, index: number): number;
  /** Replaces an entry, as a machine does that sets its accessed and dirty bits. */
  store(table: PhysPage, index: number, low: number, high: number): void;
}
