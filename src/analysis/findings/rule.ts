/**
 * A rule: what it is called, and what it watches in the life of mappings.
 *
 * Idea: the tracker (lifetimes/tracker.ts) follows every mapping once and calls the hooks a rule has; a rule that has no
 * hook for a step costs nothing there. A rule decides alone; it never changes the table.
 * To add one: a file beside this one, a line in rules.ts, a test with a trace of a few lines.
 */
import type { KernelFact } from "../../trace/index.ts";
import type { AddressHistory } from "../faults/address-history.ts";
import type { Told } from "../faults/told.ts";
import type { Place } from "../lifetimes/history.ts";
import type { IommuEvents } from "../lifetimes/iommu-events.ts";
import type { LifetimeTable } from "../lifetimes/table.ts";
import type { Confidence, Evidence, FaultFacts, MappingFacts, Severity } from "./finding.ts";

export interface Rule {
  readonly name: string;
  /** Of most of its findings; one may be milder. */
  readonly severity: Severity;
  /** What it finds, in a line. */
  readonly summary: string;
  /** What to do about it. */
  readonly advice: string;
  /** Begins to watch one trace. */
  watch(scene: Scene): Watcher;
}

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
}

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
export interface Earlier {
  readonly length: number;
  readonly start: Place | undefined;
  readonly end: Place;
}

/** What a rule may look at. */
export interface Scene {
  readonly table: LifetimeTable;
  /** The event at hand. */
  readonly now: Place;
  /** Time of the last event so far, nanoseconds. */
  lastNs(): number;
  /** Time of the first event, nanoseconds. */
  firstNs(): number;
  /** Events were lost since `timeNs`, or may have been: what rests on an event that is not there proves nothing. */
  isDoubtful(timeNs: number): boolean;
  /** The file is damaged: its end is not the end of the recording. */
  isCut(): boolean;
  /** The kernel or the recorder says that events were lost. */
  hasLost(): boolean;
  /** What no event names a device for. */
  readonly iommu: IommuEvents;
  /** "0000:00:04.0", or "an unknown device". */
  deviceName(device: number): string;
  /** At the end of the trace: why a live mapping should have ended, and how sure that is. */
  overdue(row: number): { readonly confidence: Confidence; readonly why: string } | undefined;
  /** Another device's unmap that this mapping's pages would fit, if it is found not to have ended itself. */
  suspicionOf(row: number): { readonly by: number; readonly event: Evidence } | undefined;
  /** Who had an address, when: what is live, and what has ended. */
  readonly addresses: AddressHistory;
  /** Widths that the caller knows, address bits by device. */
  readonly deviceBits: ReadonlyMap<string, number>;
  /** The input is a kernel's log: it has no mappings. */
  isLog(): boolean;
  /** The recording began in the midst of things, and what was mapped then is not known. */
  startUnknown(): boolean;
  /** Index of a device that the recording names; `undefined`: it names no such. */
  deviceIndex(name: string): number | undefined;
  evidence(what: string, place: Place, iova?: number, length?: number): Evidence;
  /** What the kernel told, as an event that shows it. */
  told(what: string, at: Told, text: string, iova?: number): Evidence;
  /** The event that `row` began with. */
  begun(row: number, what?: string): Evidence;
  /** The event at hand. */
  current(what: string, iova?: number, length?: number): Evidence;
  report(draft: Draft): void;
}

/** A finding without what the rule says of itself. */
export interface Draft {
  readonly severity?: Severity;
  /** Default certain. */
  readonly confidence?: Confidence;
  /** Index into the table's devices. */
  readonly device: number;
  /** Its name, where the table may not have it. */
  readonly deviceName?: string;
  readonly iova?: number;
  readonly length?: number;
  /** Default: the event at hand. */
  readonly timeNs?: number;
  readonly message: string;
  readonly advice?: string;
  readonly evidence: readonly Evidence[];
  /** One event proves it: lost events do not take it back. */
  readonly selfEvident?: boolean;
  readonly fault?: FaultFacts;
  readonly mapping?: MappingFacts;
  readonly hypotheses?: readonly MappingFacts[];
}

/** Steps in the life of mappings. `row` is an index into the table, valid during the call. */
export interface Watcher {
  /** A mapping begins; its columns are filled. */
  opened?(row: number): void;
  /** It ends by the event at hand; `endNs` is set. Not called for what is live at the end. */
  closed?(row: number, end: End): void;
  /** It is taken out because nothing more will be known of it: its end was lost, or named wrongly. */
  dropped?(row: number): void;
  /** The event at hand ends something that is not there. */
  unmatched?(end: End, reason: Unmatched): void;
  /** The event at hand of one device ends what only `row`, of another device, has; known for sure. */
  wrongDevice?(row: number, by: number): void;
  /** `row` begins where `older` of the same device is live. */
  overlapped?(row: number, older: number): void;
  /** A mapping failed: all-ones came back, or is given back. */
  invalid?(device: number, iova: number, length: number, used: boolean): void;
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
