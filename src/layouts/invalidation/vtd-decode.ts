/**
 * VT-d descriptors, read back: what a unit sees in its invalidation queue.
 *
 * Idea: a table of the bits that each type may set; whatever else is set is reserved, and hardware stops its queue at such
 * a descriptor with an invalidation queue error. So does a type or granularity that does not exist.
 * Promises: never throws; a decoded descriptor encodes to the same words (a queue depth of 0 reads as 32, device-TLB
 * addresses read as the block they encode).
 * Specified by: VT-d specification, 6.5.2 and 6.5.2.11 (invalid descriptors).
 */
import type { IovaPage } from "../../base/index.ts";
import { encodedOrder, encodedStart } from "./blocks.ts";
import { addressOf, type FieldMasks, pageOf, reservedBits, WORD } from "./le-words.ts";
import {
  type ContextGranularity,
  type DeviceTlb,
  type IotlbGranularity,
  type PasidCacheGranularity,
  type PasidIotlbGranularity,
  VTD_TYPE,
  type VtdDescriptor,
} from "./vtd-descriptors.ts";

/** What a unit refuses, and why. */
export interface InvalidDescriptor {
  readonly type: "invalid";
  readonly reason: "unknown type" | "reserved bits" | "granularity" | "address beyond 2^53";
}

const REFUSED: Readonly<Record<InvalidDescriptor["reason"], InvalidDescriptor>> = {
  "unknown type": { type: "invalid", reason: "unknown type" },
  "reserved bits": { type: "invalid", reason: "reserved bits" },
  granularity: { type: "invalid", reason: "granularity" },
  "address beyond 2^53": { type: "invalid", reason: "address beyond 2^53" },
};

/** By type: the bits of words 0 to 3 that are fields. */
const FIELDS: readonly FieldMasks[] = [
  [0, 0, 0, 0],
  [0xffff003f, 0x0003ffff, 0, 0], // context cache
  [0xffff00ff, 0, 0xfffff07f, WORD], // IOTLB
  [0x001ff00f, 0xfff0ffff, 0xfffff001, WORD], // device TLB
  [0xf800001f, 0x0000ffff, 0, 0], // interrupt entry cache
  [0x000000ff, WORD, 0xfffffffc, WORD], // wait
  [0xffff003f, 0x000fffff, 0xfffff07f, WORD], // PASID IOTLB
  [0xffff003f, 0x000fffff, 0, 0], // PASID cache
  [0xfffff1ff, WORD, 0xfffff800, WORD], // PASID device TLB
  [0xfffff01f, 0x000fffff, 0x00000ff8, 0], // page-group response
];
/** By type: one bit per value of G that exists. */
const CONTEXT_OR_IOTLB = 0b1110;
const PASID_IOTLB = 0b1100;
const PASID_CACHE = 0b1011;

function deviceTlb(sourceId: number, w0: number, w1: number, pending: number): DeviceTlb {
  return { sourceId, pfSourceId: ((w1 >>> 20) << 4) | ((w0 >>> 12) & 0xf), queueDepth: pending === 0 ? 32 : pending };
}

const block = (sized: boolean, page: IovaPage): { page: IovaPage; order: number } =>
  sized ? { page: encodedStart(page), order: encodedOrder(page) } : { page, order: 0 };

/** The descriptor in the slot at word `at`; a slot has 4 words, or 8 in scalable mode. One object per call. */
export function decodeVtd(words: Uint32Array, at: number, slotWords: 4 | 8): VtdDescriptor | InvalidDescriptor {
  const [w0, w1, w2, w3] = [words[at]!, words[at + 1]!, words[at + 2]!, words[at + 3]!];
  const fields = FIELDS[w0 & 0xf];
  // bits 11:9 continue the type
  if (fields === undefined || (w0 & 0xf) === 0 || (w0 & 0xe00) !== 0) return REFUSED["unknown type"];
  let reserved = reservedBits(fields, w0, w1, w2, w3);
  for (let i = 4; i < slotWords; i++) reserved |= words[at + i]!;
  if (reserved !== 0) return REFUSED["reserved bits"];
  const g = (w0 >>> 4) & 3;
  const domainId = w0 >>> 16;
  const pasid = w1 & 0xfffff;
  const page = pageOf(w2, w3);
  const order = w2 & 0x3f;
  const leafOnly = (w2 & 0x40) !== 0;
  switch (w0 & 0xf) {
    case VTD_TYPE.contextCache: {
      if (((CONTEXT_OR_IOTLB >> g) & 1) === 0) return REFUSED.granularity;
      const granularity = g as ContextGranularity;
      return { type: "context-cache", granularity, domainId, sourceId: w1 & 0xffff, functionMask: w1 >>> 16 };
    }
    case VTD_TYPE.iotlb: {
      if (((CONTEXT_OR_IOTLB >> g) & 1) === 0) return REFUSED.granularity;
      return {
        type: "iotlb",
        granularity: g as IotlbGranularity,
        domainId,
        page,
        order,
        leafOnly,
        drainReads: (w0 & 0x80) !== 0,
        drainWrites: (w0 & 0x40) !== 0,
      };
    }
    case VTD_TYPE.deviceTlb:
      return {
        type: "device-tlb",
        ...block((w2 & 1) !== 0, page),
        ...deviceTlb(w1 & 0xffff, w0, w1, (w0 >>> 16) & 0x1f),
      };
    case VTD_TYPE.interruptEntryCache:
      return { type: "interrupt-entry-cache", selective: (w0 & 0x10) !== 0, index: w1, indexMask: w0 >>> 27 };
    case VTD_TYPE.wait: {
      const statusAddress = addressOf(w2, w3);
      if (!Number.isSafeInteger(statusAddress)) return REFUSED["address beyond 2^53"];
      return {
        type: "wait",
        interrupt: (w0 & 0x10) !== 0,
        statusWrite: (w0 & 0x20) !== 0,
        fence: (w0 & 0x40) !== 0,
        drainPageRequests: (w0 & 0x80) !== 0,
        statusData: w1,
        statusAddress,
      };
    }
    case VTD_TYPE.pasidIotlb: {
      if (((PASID_IOTLB >> g) & 1) === 0) return REFUSED.granularity;
      return { type: "pasid-iotlb", granularity: g as PasidIotlbGranularity, domainId, pasid, page, order, leafOnly };
    }
    case VTD_TYPE.pasidCache:
      if (((PASID_CACHE >> g) & 1) === 0) return REFUSED.granularity;
      return { type: "pasid-cache", granularity: g as PasidCacheGranularity, domainId, pasid };
    case VTD_TYPE.pasidDeviceTlb:
      return {
        type: "pasid-device-tlb",
        pasid,
        ...block((w2 & 0x800) !== 0, page),
        ...deviceTlb(w0 >>> 16, w0, w1, (w0 >>> 4) & 0x1f),
      };
    default:
      return {
        type: "page-group-response",
        pasidPresent: (w0 & 0x10) !== 0,
        pasid,
        requesterId: w0 >>> 16,
        code: (w0 >>> 12) & 0xf,
        groupIndex: w2 >>> 3,
      };
  }
}
