/**
 * What can be watched in the life of mappings: the steps, and what each of them says.
 *
 * Idea: the ledger (ledger.ts) follows every mapping once and calls the steps that a watcher has; one that it has not costs
 * nothing. Not for: changing what is followed. A watcher only looks.
 */
import type { KernelFact } from "../../trace/index.ts";
import type { Told } from "../faults/told.ts";
import type { Place } from "./history.ts";

/** The event at hand that ends a mapping, or tries to. The object is reused. */
export interface End {
  /** What kind of mapping it ends: an index into KINDS. */
  readonly kind: number;
  readonly device: number;
  readonly iova: number;
  /** Bytes; -1: the event does not say. */
  readonly length: number;
  /** The kernel's number; -1: the event does not say. */
  readonly direction: number;
  /** Of a list: entries that it gives, and whether only one list fits; -1: it gives none. */
  readonly entries: number;
}

/** A `dma_sync_*` that no live mapping holds, or none holds all of. */
export type SyncMiss =
  /** It goes beyond the end of `row`, in which it begins. */
  | { readonly why: "beyond"; readonly row: number }
  /** The start state is known, and has nothing there. */
  | { readonly why: "not-at-start" }
  /** It has ended, or was never seen: then it may have been mapped before the recording. */
  | { readonly why: "not-live" };

/** Why an end has no mapping. */
export type Unmatched =
  /** It ended before: `earlier` says when. */
  | { readonly why: "again"; readonly earlier: Earlier }
  /** It lies inside of `row`, or belongs to another kind of mapping. */
  | { readonly why: "inside"; readonly row: number }
  /** The pages that were just taken back on this CPU are those of `row`. */
  | { readonly why: "elsewhere"; readonly row: number }
  /** The IOMMU had nothing to unmap there. */
  | { readonly why: "nothing-there" }
  /** The start state is known, and does not have it. */
  | { readonly why: "not-at-start" }
  /** The start state has its page. */
  | { readonly why: "at-start" }
  /** Never seen; it may have been mapped before the recording. */
  | { readonly why: "unknown-start" };

/** A mapping that has ended. */
interface Earlier {
  readonly length: number;
  readonly start: Place | undefined;
  readonly end: Place;
}

/** Steps in the life of mappings. `row` is an index into the table, valid during the call. */
export interface Watcher {
  /** A mapping begins; its columns are filled. */
  opened?(row: number): void;
  /** It ends by the event at hand; `endNs` is set. Not called for what is live at the end. */
  closed?(row: number, end: End): void;
  /** It is taken out without an event that names it: its end was lost, or named wrongly, or it is forgotten. */
  dropped?(row: number): void;
  /** The event at hand ends something that is not there. */
  unmatched?(end: End, reason: Unmatched): void;
  /** The event at hand of one device ends what only `row`, of another device, has; known for sure. */
  wrongDevice?(row: number, by: number): void;
  /** `row` begins where `older` of the same device is live. */
  overlapped?(row: number, older: number): void;
  /** A call failed, for the reason `error` (the kernel's number, negative): one that maps, or one that allocates. */
  failed?(device: number, length: number, error: number, isAllocation: boolean): void;
  /** The address of a mapping that failed is given back. */
  failedUsed?(device: number, length: number): void;
  /** Two-step: link, before it is counted. */
  linking?(row: number, offset: number, length: number, phys: number): void;
  synced?(row: number, offset: number, length: number): void;
  /** `hole`: the first byte of it that is not linked; -1: all is. */
  unlinking?(row: number, offset: number, length: number, hole: number): void;
  /** Before it ends. `mapped`: bytes that the driver says are linked; `beyond`: bytes linked after those; `hole`: as above. */
  destroying?(row: number, mapped: number, beyond: number, hole: number): void;
  /** The state of `row` is used for another reservation. */
  abandoned?(row: number): void;
  /** `dma_map_sg` that shows `shown` of `full` entries. */
  truncated?(row: number, shown: number, full: number): void;
  /** `dma_sync_*` of live memory, with the direction of the call. */
  syncedData?(row: number, direction: number, iova: number, length: number): void;
  /** `dma_sync_*` of what is not mapped, or not as far. */
  syncMissed?(device: number, iova: number, length: number, miss: SyncMiss): void;
  iommuMapped?(page: number, pages: number): void;
  iommuUnmapped?(iova: number, asked: number, done: number): void;
  /** Pages of a mapping of `device` were taken back by an `iommu:unmap`: before the event that names it, or after. */
  tookBack?(device: number, page: number, pages: number): void;
  /** Invalidation of pages [page, end). */
  flushed?(page: number, end: number): void;
  faulted?(device: number, iova: number): void;
  /** The kernel told something: a fault, a verdict of its own. Up to two batches late: its own time counts. */
  said?(fact: KernelFact<Told>): void;
  bounced?(device: number, mask: number, address: number, length: number, forced: boolean): void;
  /** Pages of memory were freed. */
  freed?(page: number, pages: number): void;
  /** The trace has ended; rows that are live are still in the table. */
  finish?(): void;
}
