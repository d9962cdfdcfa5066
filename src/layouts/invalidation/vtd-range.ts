/**
 * From a range to VT-d descriptors: what has to be sent to one cache so that it forgets pages [start, end).
 *
 * Idea: a domain keeps a list of the caches that may hold its translations, here *cache tags*; each tag and a range give
 * one descriptor (two on a device with the erratum). The range is widened to the smallest block that covers it; where the
 * unit cannot name that block, everything of the domain or PASID goes.
 * Promises: no allocation; the same descriptors as Linux, with one difference: a tag that is always flushed whole does
 * not widen what is sent to the tags after it.
 * Not for: order and batching (IOTLB before device TLB, up to 16 per submission, then a wait), nor which tags a domain has.
 * Specified by: behaviour of Linux 7.2 (drivers/iommu/intel/cache.c); judged by test/golden/invalidation.
 */
import type { IovaPage } from "../../base/index.ts";
import { blockStart, coveringOrder, END_OF_PAGES, EVERYTHING } from "./blocks.ts";
import {
  type DeviceTlb,
  IOTLB_GRANULARITY,
  PASID_IOTLB_GRANULARITY,
  writeDeviceTlb,
  writeIotlb,
  writePasidDeviceTlb,
  writePasidIotlb,
} from "./vtd-descriptors.ts";

/** What a unit's capability registers say about invalidation. */
export interface VtdInvalidationTraits {
  /** Words of a queue slot: 4, or 8 in scalable mode. */
  readonly slotWords: 4 | 8;
  /** PSI: second-stage translations can be forgotten by page. */
  readonly pageSelective: boolean;
  /** MAMV: the largest order of a page-selective invalidation of second-stage translations. */
  readonly maxOrder: number;
  readonly drainReads: boolean;
  readonly drainWrites: boolean;
}

/** A cache that may hold translations of a domain. PASID 0 is that of requests without PASID. */
export type VtdCacheTag =
  | {
      readonly cache: "iotlb";
      /** Which tables the domain has: first-stage ones are cached by domain and PASID. */
      readonly stage: "first" | "second";
      readonly domainId: number;
      readonly pasid: number;
    }
  | {
      readonly cache: "device-tlb";
      readonly device: DeviceTlb;
      readonly pasid: number;
      /** The device's addresses are not those of the range (it sits behind nested tables): all of it is forgotten. */
      readonly whole: boolean;
      /** The device forgets reliably only when told twice. */
      readonly twice: boolean;
    };

/** IOTLB, second stage: page-selective if the unit can name the block, else all of the domain. One descriptor. */
export function writeSecondStageRange(
  words: Uint32Array,
  at: number,
  unit: VtdInvalidationTraits,
  domainId: number,
  start: IovaPage,
  end: IovaPage,
  leafOnly: boolean,
): void {
  const order = coveringOrder(start, end);
  const { drainReads, drainWrites } = unit;
  if (unit.pageSelective && order <= unit.maxOrder) {
    const page = blockStart(start, order);
    writeIotlb(words, at, IOTLB_GRANULARITY.page, domainId, page, order, leafOnly, drainReads, drainWrites);
  } else {
    writeIotlb(words, at, IOTLB_GRANULARITY.domain, domainId, 0 as IovaPage, 0, false, drainReads, drainWrites);
  }
}

/** IOTLB, first stage: page-selective unless the block is everything, then all of the PASID. One descriptor. */
export function writeFirstStageRange(
  words: Uint32Array,
  at: number,
  domainId: number,
  pasid: number,
  start: IovaPage,
  end: IovaPage,
  leafOnly: boolean,
): void {
  const order = coveringOrder(start, end);
  if (order < EVERYTHING) {
    const page = blockStart(start, order);
    writePasidIotlb(words, at, PASID_IOTLB_GRANULARITY.page, domainId, pasid, page, order, leafOnly);
  } else {
    writePasidIotlb(words, at, PASID_IOTLB_GRANULARITY.pasid, domainId, pasid, 0 as IovaPage, 0, false);
  }
}

/** Device TLB: the covering block, whatever its size; with the PASID if it is not 0. One descriptor. */
export function writeDeviceTlbRange(
  words: Uint32Array,
  at: number,
  device: DeviceTlb,
  pasid: number,
  start: IovaPage,
  end: IovaPage,
): void {
  const order = coveringOrder(start, end);
  const page = blockStart(start, order);
  if (pasid === 0) writeDeviceTlb(words, at, device, page, order);
  else writePasidDeviceTlb(words, at, device, pasid, page, order);
}

/**
 * What one cache tag needs for pages [start, end). The whole domain is [0, 2^52) without `leafOnly`.
 *
 * @param leafOnly true if and only if no tables were freed with the range: cached pointers to tables may then stay
 * @returns descriptors written, from word `at` on: 1 or 2
 * @throws DmaError ERR_DMA_INVALIDATION_RANGE, ERR_DMA_INVALIDATION_FIELD (EINVAL)
 */
export function writeCacheTag(
  words: Uint32Array,
  at: number,
  unit: VtdInvalidationTraits,
  tag: VtdCacheTag,
  start: IovaPage,
  end: IovaPage,
  leafOnly: boolean,
): number {
  if (tag.cache === "iotlb") {
    if (tag.stage === "second") writeSecondStageRange(words, at, unit, tag.domainId, start, end, leafOnly);
    else writeFirstStageRange(words, at, tag.domainId, tag.pasid, start, end, leafOnly);
    return 1;
  }
  const times = tag.twice ? 2 : 1;
  const first = tag.whole ? (0 as IovaPage) : start;
  const after = tag.whole ? END_OF_PAGES : end;
  for (let i = 0; i < times; i++)
    writeDeviceTlbRange(words, at + i * unit.slotWords, tag.device, tag.pasid, first, after);
  return times;
}
