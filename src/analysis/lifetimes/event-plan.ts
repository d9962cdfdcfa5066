/**
 * How the events of one type are read: what they mean, and which of their fields says what, worked out once.
 *
 * Idea: the catalogue (src/trace) knows the DMA, IOMMU and bounce events; a few more are known here, because only the
 * analysis has a use for them: invalidations, freed pages, lost-event marks.
 */
import { ATTRIBUTE_BITS } from "../../base/index.ts";
import {
  type EventBatch,
  type EventType,
  fieldNumber,
  known,
  LOST_EVENTS,
  type Meaning,
  type OutcomeOf,
  outcomeOf,
  type Role,
} from "../../trace/index.ts";

/** What the analysis reads beside the catalogue. */
type Extra = "lost" | "flush" | "freed";

/** The events that invalidate, by name; without a range they invalidate everything. */
const FLUSHES = new Set(["cache_tag_flush_range", "cache_tag_flush_all", "fq_flush", "iotlb_sync"]);
/** Fields that say who called. */
const SITES = ["caller", "call_site", "site", "__probe_ret_ip"];

/** The attribute of device memory, as the kernel numbers it. */
const MMIO = ATTRIBUTE_BITS.mmio;

/** In place of a DMA address: the mapping failed. */
export const FAILED = -1;
const ALL_ONES = 0xffff_ffff;

/** An event type, ready to be read: field indices, -1 where the event has none. */
export interface EventPlan {
  /** `undefined`: nothing that matters here. */
  readonly what: Meaning | Extra | undefined;
  readonly device: number;
  readonly direction: number;
  readonly address: number;
  readonly size: number;
  readonly phys: number;
  readonly state: number;
  readonly offset: number;
  readonly unmapped: number;
  readonly iova: number;
  readonly attributes: number;
  /** A call that is of device memory always: `dma_map_resource` and its end. */
  readonly isResource: boolean;
  /** What came of a call. */
  readonly outcome: OutcomeOf;
  /** Who called, and whether that is text. */
  readonly site: number;
  readonly siteIsText: boolean;
  readonly type: EventType;
  /** A field that few events have, by its role or its name. */
  readonly field: (role: Role) => number;
  readonly named: (name: string) => number;
}

/** The plan of one type; `longBytes` as in `Trace.longBytes`. */
export function planOf(type: EventType, longBytes: number | undefined): EventPlan {
  const event = known(type);
  const field = (role: Role): number => event?.fields[role] ?? -1;
  const named = (name: string): number => type.fields.findIndex((one) => one.name === name);
  const site = SITES.map(named).find((at) => at >= 0) ?? -1;
  return {
    what: event?.meaning ?? extraOf(type, named),
    device: field("device"),
    direction: field("direction"),
    address: field("dmaAddr"),
    size: event ? field("size") : named("size"),
    phys: field("physAddr"),
    state: field("state"),
    offset: field("offset"),
    unmapped: field("unmappedSize"),
    iova: event ? field("iova") : named("iova"),
    attributes: field("attrs"),
    isResource: type.name.endsWith("_resource"),
    outcome: outcomeOf(type, longBytes, event),
    site,
    siteIsText: type.fields[site]?.kind === "string",
    type,
    field,
    named,
  };
}

function extraOf({ name }: EventType, named: (name: string) => number): Extra | undefined {
  if (name === LOST_EVENTS) return "lost";
  if (FLUSHES.has(name)) return "flush";
  return name === "mm_page_free" && named("pfn") >= 0 ? "freed" : undefined;
}

/** A field as a number; 0 where the event has none. */
export const read = (batch: EventBatch, row: number, field: number): number =>
  field < 0 ? 0 : fieldNumber(batch, row, field);

/** A field that may be missing: -1 then. */
export const readIfThere = (batch: EventBatch, row: number, field: number): number =>
  field < 0 ? -1 : fieldNumber(batch, row, field);

/** Whether the call at hand is of a device's memory, not of RAM: a peer's (P2P), mostly. */
export const isOfDeviceMemory = ({ attributes, isResource }: EventPlan, batch: EventBatch, row: number): boolean =>
  isResource || (attributes >= 0 && (batch.words[batch.start[row]! + attributes * 2]! & MMIO) !== 0);

/** A DMA address: {@link FAILED} if it is all ones, of 64 bits. */
export function addressAt(batch: EventBatch, row: number, field: number): number {
  if (field < 0) return 0;
  const at = batch.start[row]! + field * 2;
  const [low, high] = [batch.words[at]!, batch.words[at + 1]!];
  if (low === ALL_ONES && high === ALL_ONES) return FAILED;
  return high * 0x1_0000_0000 + low;
}

/** A kernel pointer in 53 bits: the upper eleven are the same for all of them. */
export function stateAt(batch: EventBatch, row: number, field: number): number {
  if (field < 0) return 0;
  const at = batch.start[row]! + field * 2;
  return (batch.words[at + 1]! & 0x1f_ffff) * 0x1_0000_0000 + batch.words[at]!;
}

/** The items of a list field. */
export function items(batch: EventBatch, row: number, field: number): number[] {
  if (field < 0) return [];
  const at = batch.start[row]! + field * 2;
  const first = batch.words[at]!;
  return Array.from(
    { length: batch.words[at + 1]! },
    (_, i) => batch.words[first + i * 2 + 1]! * 2 ** 32 + batch.words[first + i * 2]!,
  );
}
