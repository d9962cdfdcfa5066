/**
 * VT-d descriptors: what software puts into the invalidation queue of a VT-d unit.
 *
 * Idea: one `write...` per type, of plain numbers and without allocation, for the paths that unmap; and
 * {@link encodeVtd} for a descriptor that is a value. `vtd-decode.ts` reads them with its own masks.
 * A slot of the queue has 128 bits (legacy) or 256 (scalable mode); writers fill the lower 128, and the upper half, which no
 * descriptor here uses, has to be 0 from the start.
 * Not for: which descriptor a range needs; that is `vtd-range.ts`.
 * Specified by: VT-d specification, 6.5.2; values of vectors and golden data from Linux 7.2.
 */
import type { IovaPage, PhysAddr } from "../../base/index.ts";
import { encodeBlock } from "./blocks.ts";
import { addressHigh, checkField, flagAt, pageHigh, pageLow, putWords } from "./le-words.ts";

/** Bits 3:0 of word 0. */
export const VTD_TYPE = {
  contextCache: 1,
  iotlb: 2,
  deviceTlb: 3,
  interruptEntryCache: 4,
  wait: 5,
  pasidIotlb: 6,
  pasidCache: 7,
  pasidDeviceTlb: 8,
  pageGroupResponse: 9,
} as const;

/** Field G: how much is forgotten. Page is page-selective, domain is domain-selective. */
export const CONTEXT_GRANULARITY = { global: 1, domain: 2, device: 3 } as const;
export const IOTLB_GRANULARITY = { global: 1, domain: 2, page: 3 } as const;
export const PASID_IOTLB_GRANULARITY = { pasid: 2, page: 3 } as const;
export const PASID_CACHE_GRANULARITY = { domain: 0, pasid: 1, global: 3 } as const;

type ValueOf<T> = T[keyof T];
export type ContextGranularity = ValueOf<typeof CONTEXT_GRANULARITY>;
export type IotlbGranularity = ValueOf<typeof IOTLB_GRANULARITY>;
export type PasidIotlbGranularity = ValueOf<typeof PASID_IOTLB_GRANULARITY>;
export type PasidCacheGranularity = ValueOf<typeof PASID_CACHE_GRANULARITY>;

/** Answers to a page request, as PCIe numbers them (PCIe 6.0, 10.4.2.1). Software that says 2 for failure must translate. */
export const PAGE_RESPONSE = { success: 0, invalid: 1, failure: 15 } as const;

/** A device that keeps translations of its own. */
export interface DeviceTlb {
  /** Bus, device and function of the device; 16 bits. */
  readonly sourceId: number;
  /** PFSID: the same of its physical function, its own if it is one; 0 on units that do not ask for it. */
  readonly pfSourceId: number;
  /** Invalidations that may be in flight to it: 1 to 32. The field has 5 bits and says 0 for 32. */
  readonly queueDepth: number;
}

/** One descriptor as a value. Pages are of 4 KiB; a block is `order`, `page`. */
export type VtdDescriptor =
  | {
      readonly type: "context-cache";
      readonly granularity: ContextGranularity;
      readonly domainId: number;
      readonly sourceId: number;
      /** FM: 0 to 3, how many of the function's low bits are ignored. */
      readonly functionMask: number;
    }
  | {
      readonly type: "iotlb";
      readonly granularity: IotlbGranularity;
      readonly domainId: number;
      /** The unit ignores the `order` lowest bits. 0 unless page-selective. */
      readonly page: IovaPage;
      readonly order: number;
      /** IH: cached table pointers may stay. */
      readonly leafOnly: boolean;
      readonly drainReads: boolean;
      readonly drainWrites: boolean;
    }
  | ({ readonly type: "device-tlb"; readonly page: IovaPage; readonly order: number } & DeviceTlb)
  | {
      readonly type: "interrupt-entry-cache";
      /** G: `index` and `indexMask` count. */
      readonly selective: boolean;
      readonly index: number;
      readonly indexMask: number;
    }
  | {
      readonly type: "wait";
      readonly interrupt: boolean;
      readonly statusWrite: boolean;
      readonly fence: boolean;
      readonly drainPageRequests: boolean;
      /** Written to `statusAddress` when all earlier descriptors are done; 32 bits. */
      readonly statusData: number;
      /** Bytes; a multiple of 4. */
      readonly statusAddress: PhysAddr;
    }
  | {
      readonly type: "pasid-iotlb";
      readonly granularity: PasidIotlbGranularity;
      readonly domainId: number;
      readonly pasid: number;
      readonly page: IovaPage;
      readonly order: number;
      readonly leafOnly: boolean;
    }
  | {
      readonly type: "pasid-cache";
      readonly granularity: PasidCacheGranularity;
      readonly domainId: number;
      readonly pasid: number;
    }
  | ({
      readonly type: "pasid-device-tlb";
      readonly pasid: number;
      readonly page: IovaPage;
      readonly order: number;
    } & DeviceTlb)
  | {
      readonly type: "page-group-response";
      readonly pasidPresent: boolean;
      readonly pasid: number;
      readonly requesterId: number;
      /** One of {@link PAGE_RESPONSE}. */
      readonly code: number;
      readonly groupIndex: number;
    };

export function writeContextCache(
  words: Uint32Array,
  at: number,
  granularity: ContextGranularity,
  domainId: number,
  sourceId: number,
  functionMask: number,
): void {
  checkField("context-cache descriptor", "domainId", domainId, 16);
  checkField("context-cache descriptor", "sourceId", sourceId, 16);
  checkField("context-cache descriptor", "functionMask", functionMask, 2);
  const w0 = VTD_TYPE.contextCache | (granularity << 4) | (domainId << 16);
  putWords(words, at, w0, sourceId | (functionMask << 16), 0, 0);
}

/** IOTLB of second-stage tables. `page`, `order` and `leafOnly` are 0 and false unless page-selective. */
export function writeIotlb(
  words: Uint32Array,
  at: number,
  granularity: IotlbGranularity,
  domainId: number,
  page: IovaPage,
  order: number,
  leafOnly: boolean,
  drainReads: boolean,
  drainWrites: boolean,
): void {
  checkField("IOTLB descriptor", "domainId", domainId, 16);
  checkField("IOTLB descriptor", "page", page, 52);
  checkField("IOTLB descriptor", "order", order, 6);
  const drains = flagAt(drainWrites, 6) | flagAt(drainReads, 7);
  const w0 = VTD_TYPE.iotlb | (granularity << 4) | drains | (domainId << 16);
  putWords(words, at, w0, 0, order | flagAt(leafOnly, 6) | pageLow(page), pageHigh(page));
}

/** Translations that a device keeps for requests without PASID. `page` starts a block of `order`. */
export function writeDeviceTlb(
  words: Uint32Array,
  at: number,
  { sourceId, pfSourceId, queueDepth }: DeviceTlb,
  page: IovaPage,
  order: number,
): void {
  checkField("device-TLB descriptor", "sourceId", sourceId, 16);
  checkField("device-TLB descriptor", "pfSourceId", pfSourceId, 16);
  checkField("device-TLB descriptor", "queueDepth", queueDepth, 16);
  checkField("device-TLB descriptor", "page", page, 52);
  const encoded = encodeBlock(page, order);
  const pending = queueDepth >= 32 ? 0 : queueDepth;
  const w0 = VTD_TYPE.deviceTlb | ((pfSourceId & 0xf) << 12) | (pending << 16);
  const w1 = sourceId | ((pfSourceId >>> 4) << 20);
  putWords(words, at, w0, w1, (order === 0 ? 0 : 1) | pageLow(encoded), pageHigh(encoded));
}

/** `index` and `indexMask` are 0 unless `selective`. */
export function writeInterruptEntryCache(
  words: Uint32Array,
  at: number,
  selective: boolean,
  index: number,
  indexMask: number,
): void {
  checkField("interrupt-entry-cache descriptor", "index", index, 16);
  checkField("interrupt-entry-cache descriptor", "indexMask", indexMask, 5);
  putWords(words, at, VTD_TYPE.interruptEntryCache | flagAt(selective, 4) | (indexMask << 27), index, 0, 0);
}

/** Ends a submission: `statusData` appears at `statusAddress` when everything before it is done. */
export function writeWait(
  words: Uint32Array,
  at: number,
  statusAddress: PhysAddr,
  statusData: number,
  statusWrite: boolean,
  interrupt: boolean,
  fence: boolean,
  drainPageRequests: boolean,
): void {
  checkField("wait descriptor", "statusData", statusData, 32);
  checkField("wait descriptor", "statusAddress / 4", statusAddress / 4, 51);
  const flags = flagAt(interrupt, 4) | flagAt(statusWrite, 5) | flagAt(fence, 6) | flagAt(drainPageRequests, 7);
  putWords(words, at, VTD_TYPE.wait | flags, statusData, statusAddress, addressHigh(statusAddress));
}

/** IOTLB of first-stage tables. `page`, `order` and `leafOnly` are 0 and false unless page-selective. */
export function writePasidIotlb(
  words: Uint32Array,
  at: number,
  granularity: PasidIotlbGranularity,
  domainId: number,
  pasid: number,
  page: IovaPage,
  order: number,
  leafOnly: boolean,
): void {
  checkField("PASID IOTLB descriptor", "domainId", domainId, 16);
  checkField("PASID IOTLB descriptor", "pasid", pasid, 20);
  checkField("PASID IOTLB descriptor", "page", page, 52);
  checkField("PASID IOTLB descriptor", "order", order, 6);
  const w0 = VTD_TYPE.pasidIotlb | (granularity << 4) | (domainId << 16);
  putWords(words, at, w0, pasid, order | flagAt(leafOnly, 6) | pageLow(page), pageHigh(page));
}

export function writePasidCache(
  words: Uint32Array,
  at: number,
  granularity: PasidCacheGranularity,
  domainId: number,
  pasid: number,
): void {
  checkField("PASID-cache descriptor", "domainId", domainId, 16);
  checkField("PASID-cache descriptor", "pasid", pasid, 20);
  putWords(words, at, VTD_TYPE.pasidCache | (granularity << 4) | (domainId << 16), pasid, 0, 0);
}

/** Translations that a device keeps for requests with `pasid`. `page` starts a block of `order`. */
export function writePasidDeviceTlb(
  words: Uint32Array,
  at: number,
  { sourceId, pfSourceId, queueDepth }: DeviceTlb,
  pasid: number,
  page: IovaPage,
  order: number,
): void {
  checkField("PASID device-TLB descriptor", "sourceId", sourceId, 16);
  checkField("PASID device-TLB descriptor", "pfSourceId", pfSourceId, 16);
  checkField("PASID device-TLB descriptor", "pasid", pasid, 20);
  checkField("PASID device-TLB descriptor", "queueDepth", queueDepth, 16);
  checkField("PASID device-TLB descriptor", "page", page, 52);
  const encoded = encodeBlock(page, order);
  const pending = queueDepth & 0x1f; // above 32, which no device announces, Linux differs here from the one without PASID
  const w0 = VTD_TYPE.pasidDeviceTlb | (pending << 4) | ((pfSourceId & 0xf) << 12) | (sourceId << 16);
  const w1 = pasid | ((pfSourceId >>> 4) << 20);
  putWords(words, at, w0, w1, (order === 0 ? 0 : 1 << 11) | pageLow(encoded), pageHigh(encoded));
}

/** Answers a group of page requests. `code` is one of {@link PAGE_RESPONSE}; `pasid` is 0 unless present. */
export function writePageGroupResponse(
  words: Uint32Array,
  at: number,
  requesterId: number,
  groupIndex: number,
  code: number,
  pasidPresent: boolean,
  pasid: number,
): void {
  checkField("page-group response", "requesterId", requesterId, 16);
  checkField("page-group response", "groupIndex", groupIndex, 9);
  checkField("page-group response", "code", code, 4);
  checkField("page-group response", "pasid", pasid, 20);
  const w0 = VTD_TYPE.pageGroupResponse | flagAt(pasidPresent, 4) | (code << 12) | (requesterId << 16);
  putWords(words, at, w0, pasid, groupIndex << 3, 0);
}

/**
 * Writes a descriptor that is a value.
 * @throws DmaError ERR_DMA_INVALIDATION_FIELD (EINVAL): a value does not fit; ERR_DMA_INVALIDATION_ALIGNMENT (EINVAL): a
 *   block of a device TLB does not start at a multiple of its size. The words are then unchanged.
 */
export function encodeVtd(d: VtdDescriptor, words: Uint32Array, at: number): void {
  switch (d.type) {
    case "context-cache":
      writeContextCache(words, at, d.granularity, d.domainId, d.sourceId, d.functionMask);
      break;
    case "iotlb": {
      const { granularity, domainId, page, order, leafOnly, drainReads, drainWrites } = d;
      writeIotlb(words, at, granularity, domainId, page, order, leafOnly, drainReads, drainWrites);
      break;
    }
    case "device-tlb":
      writeDeviceTlb(words, at, d, d.page, d.order);
      break;
    case "interrupt-entry-cache":
      writeInterruptEntryCache(words, at, d.selective, d.index, d.indexMask);
      break;
    case "wait": {
      const { statusAddress, statusData, statusWrite, interrupt, fence, drainPageRequests } = d;
      writeWait(words, at, statusAddress, statusData, statusWrite, interrupt, fence, drainPageRequests);
      break;
    }
    case "pasid-iotlb":
      writePasidIotlb(words, at, d.granularity, d.domainId, d.pasid, d.page, d.order, d.leafOnly);
      break;
    case "pasid-cache":
      writePasidCache(words, at, d.granularity, d.domainId, d.pasid);
      break;
    case "pasid-device-tlb":
      writePasidDeviceTlb(words, at, d, d.pasid, d.page, d.order);
      break;
    case "page-group-response":
      writePageGroupResponse(words, at, d.requesterId, d.groupIndex, d.code, d.pasidPresent, d.pasid);
      break;
  }
}
