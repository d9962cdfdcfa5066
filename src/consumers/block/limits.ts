/**
 * Queue limits: how large a request may be before it is split.
 *
 * Idea: what the device can do, cut by what the mapping layer does well. Behind an IOMMU that is 128 KiB, the largest range
 * that the IOVA caches hold, so that no request ever searches the address space; with bounce buffers 252 KiB at most; with
 * direct mapping 8 MiB.
 * Specified by: behaviour of Linux 7.2 block layer and NVMe driver.
 */
import { MiB } from "../../base/index.ts";

/** What a disk takes in one request: sizes, counts, boundaries. Bytes. */
export interface QueueLimits {
  /** Longest request, bytes. */
  readonly maxBytes: number;
  /** Most data vectors of a request. */
  readonly maxSegments: number;
  /** Longest data vector, bytes. */
  readonly maxSegmentBytes: number;
  /** No vector may cross a multiple of this + 1: 2^n - 1; all ones for no boundary. */
  readonly segmentBoundaryMask: number;
  /** No junction may have these bits: 4095 for devices that can only be given whole pages; 0 otherwise. */
  readonly virtualBoundaryMask: number;
  /** Most metadata vectors of a request. */
  readonly maxIntegritySegments: number;
  /** Bytes of a logical block: requests are split at multiples of it. */
  readonly blockBytes: number;
  /** Buffers may lie in the memory of another device. */
  readonly peerMemory: boolean;
}

/** No limit of its own. */
export const UNLIMITED_SEGMENT = 0xffff_ffff;
/** No boundary that a segment must not cross. */
export const UNLIMITED_BOUNDARY: number = Number.MAX_SAFE_INTEGER;

/** Limits of a queue that has said nothing: those of Linux. */
export const DEFAULT_LIMITS: QueueLimits = {
  maxBytes: 8 * MiB,
  maxSegments: 256,
  maxSegmentBytes: UNLIMITED_SEGMENT,
  segmentBoundaryMask: UNLIMITED_BOUNDARY,
  virtualBoundaryMask: 0,
  maxIntegritySegments: 1,
  blockBytes: 512,
  peerMemory: false,
};

/**
 * The longest request of a device that can do `deviceBytes`, in whole blocks.
 *
 * `optimal` is what the mapping layer does best and is left out of it with `ignoreOptimal`: fewer commands for longer searches.
 */
export function requestLimit(
  deviceBytes: number,
  mapping: { readonly maxMappingSize: number; readonly optMappingSize: number },
  blockBytes: number,
  ignoreOptimal = false,
): number {
  const best = ignoreOptimal ? Number.MAX_SAFE_INTEGER : mapping.optMappingSize;
  const bytes = Math.min(deviceBytes, mapping.maxMappingSize, best);
  return Math.max(blockBytes, bytes - (bytes % blockBytes));
}

/** The most bytes from `phys` on that one segment may have. */
export function segmentRoom(limits: QueueLimits, phys: number): number {
  const { segmentBoundaryMask, maxSegmentBytes } = limits;
  if (segmentBoundaryMask === UNLIMITED_BOUNDARY) return maxSegmentBytes;
  const toBoundary = segmentBoundaryMask + 1 - (phys % (segmentBoundaryMask + 1));
  return toBoundary < maxSegmentBytes ? toBoundary : maxSegmentBytes;
}
