/**
 * Root, context and PASID entries, as a simulated VT-d unit reads them: from memory, with its own masks.
 *
 * Idea: both modes end in the same *binding*: what the requests of one device and PASID are translated by, or the reason
 * why not. Specified by: VT-d specification, 9.1 to 9.6.
 */
import type { PhysPage } from "../../../../base/index.ts";
import type { TableMemory } from "../../../../platform/index.ts";
import { REASON } from "./fault-reasons.ts";

/** Where a stage's tables begin, and how many levels they have. */
export interface Stage {
  readonly table: PhysPage;
  readonly levels: number;
}

/** What the requests of a device and PASID are translated by. */
export interface Binding {
  readonly domainId: number;
  readonly first: Stage | undefined;
  /** Neither stage: pass-through. */
  readonly second: Stage | undefined;
  /** FPD: refused requests leave no record. */
  readonly silent: boolean;
}

/** A device's context entry in scalable mode. */
export interface ScalableContext {
  readonly directory: PhysPage;
  /** PASIDs are below this. */
  readonly pasids: number;
  readonly pasidEnabled: boolean;
  readonly deviceTlb: boolean;
  readonly pageRequests: boolean;
  readonly requestPasid: number;
  readonly silent: boolean;
}

/** A device's context entry in legacy mode. */
export interface LegacyContext {
  readonly binding: Binding;
  readonly deviceTlb: boolean;
}

const pageOf = (low: number, high: number): PhysPage => ((high >>> 0) * 2 ** 20 + (low >>> 12)) as PhysPage;

/** The entry of `requester`, or the reason of a fault. */
export function readLegacyContext(memory: TableMemory, root: PhysPage, requester: number): LegacyContext | number {
  const bus = requester >>> 8;
  const rootLow = memory.low(root, bus * 2);
  if ((rootLow & 1) === 0) return REASON.rootNotPresent;
  const table = pageOf(rootLow, memory.high(root, bus * 2));
  const at = (requester & 0xff) * 2;
  const low = memory.low(table, at);
  if ((low & 1) === 0) return REASON.contextNotPresent;
  const second = memory.low(table, at + 1);
  const type = (low >>> 2) & 3;
  const levels = (second & 7) + 2;
  const domainId = (second >>> 8) & 0xffff;
  const silent = (low & 2) !== 0;
  if (type === 3 || levels < 3 || levels > 5) return REASON.contextInvalid;
  const stage = { table: pageOf(low, memory.high(table, at)), levels };
  return {
    binding: { domainId, first: undefined, second: type === 2 ? undefined : stage, silent },
    deviceTlb: type === 1,
  };
}

/** The same in scalable mode. */
export function readScalableContext(memory: TableMemory, root: PhysPage, requester: number): ScalableContext | number {
  const [bus, upper] = [requester >>> 8, (requester >>> 7) & 1];
  const rootLow = memory.low(root, bus * 2 + upper);
  if ((rootLow & 1) === 0) return REASON.scalableRootNotPresent;
  const table = pageOf(rootLow, memory.high(root, bus * 2 + upper));
  const at = (requester & 0x7f) * 4;
  const low = memory.low(table, at);
  if ((low & 1) === 0) return REASON.scalableContextNotPresent;
  if ((low & 0x1e0) !== 0) return REASON.contextReserved;
  return {
    directory: pageOf(low, memory.high(table, at)),
    pasids: 2 ** (((low >>> 9) & 7) + 7) * 64,
    pasidEnabled: (low & 8) !== 0,
    deviceTlb: (low & 4) !== 0,
    pageRequests: (low & 16) !== 0,
    requestPasid: memory.low(table, at + 1) & 0xfffff,
    silent: (low & 2) !== 0,
  };
}

/** The PASID entry below a context, or the reason of a fault. */
export function readPasid(memory: TableMemory, context: ScalableContext, pasid: number): Binding | number {
  if (pasid >= context.pasids) return REASON.pasidTooLarge;
  const index = pasid >>> 6;
  const directory = (context.directory + (index >>> 9)) as PhysPage;
  const entry = memory.low(directory, index & 511);
  if ((entry & 1) === 0) return REASON.directoryNotPresent;
  const table = pageOf(entry, memory.high(directory, index & 511));
  const at = (pasid & 63) * 8;
  const low = memory.low(table, at);
  if ((low & 1) === 0) return REASON.pasidNotPresent;
  if ((low & 0xc00) !== 0) return REASON.pasidReserved;
  const type = (low >>> 6) & 7;
  const width = ((low >>> 2) & 7) + 2;
  const domainId = memory.low(table, at + 1) & 0xffff;
  const flags = memory.low(table, at + 2);
  const paging = (flags >>> 2) & 3;
  const hasFirst = type === 1 || type === 3;
  const hasSecond = type === 2 || type === 3;
  if (type < 1 || type > 4 || (hasFirst && paging > 1) || (hasSecond && (width < 3 || width > 5)))
    return REASON.pasidInvalid;
  return {
    domainId,
    first: hasFirst ? { table: pageOf(flags, memory.high(table, at + 2)), levels: 4 + paging } : undefined,
    second: hasSecond ? { table: pageOf(low, memory.high(table, at)), levels: width } : undefined,
    silent: context.silent || (low & 2) !== 0,
  };
}
