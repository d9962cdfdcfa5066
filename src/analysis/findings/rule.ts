/**
 * A rule: what it is called, and what it watches in the life of mappings.
 *
 * Idea: the engine (follow.ts) follows every mapping once and calls the steps that a rule has (lifetimes/watcher.ts); a step that it
 * has not costs nothing. A rule decides alone; it never changes the table.
 * To add one: a file beside this one, a line in rules.ts, a test with a trace of a few lines.
 */
import type { AddressHistory } from "../faults/address-history.ts";
import type { Told } from "../faults/told.ts";
import type { BounceUse } from "../lifetimes/bounce-use.ts";
import type { Place } from "../lifetimes/history.ts";
import type { IommuMatcher } from "../lifetimes/iommu-matcher.ts";
import type { LifetimeTable } from "../lifetimes/table.ts";
import type { Watcher } from "../lifetimes/watcher.ts";
import type { UserMappingUse } from "../user-mappings.ts";
import type { Confidence, Evidence, FaultFacts, MappingFacts, Severity } from "./finding.ts";

/** A rule: its name, how grave it is, and what it watches. */
export interface Rule {
  /** As options and findings have it. */
  readonly name: string;
  /** Of most of its findings; one may be milder. */
  readonly severity: Severity;
  /** What it finds, in a line. */
  readonly summary: string;
  /** What to do about it. */
  readonly advice: string;
  /** Begins to watch one trace. */
  watch(context: RuleContext): Watcher;
}

/** What a rule may look at. */
export interface RuleContext {
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
  /** Who uses the pool of bounce buffers. */
  readonly bounce: BounceUse;
  /** The name of an event by its type; empty: there is none. */
  eventName(type: number): string;
  /** The driver's functions behind a call site, the innermost first; `undefined`: not recorded. */
  codeAt(site: number): readonly string[] | undefined;
  /** A task's name, by its number in the table or an event. */
  taskName(task: number): string;
  /** Mappings of programs, as far as they have ended. */
  readonly user: UserMappingUse;
  /** What no event names a device for. */
  readonly iommu: IommuMatcher;
  /** `dma:*` events are recorded: what is coherent memory has a name. A kernel before 6.12 has none of them. */
  namesAllocations(): boolean;
  /** "0000:00:04.0", or "an unknown device". */
  deviceName(device: number): string;
  /** Calls `visit` with each run of pages that `row` holds of its device's address space. */
  eachExtent(row: number, visit: (page: number, pages: number) => void): void;
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
