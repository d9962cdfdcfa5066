/**
 * What a VT-d unit can do, read from its capability registers.
 *
 * Specified by: VT-d specification, 11.4.2 (CAP) and 11.4.3 (ECAP).
 */
import type { VtdInvalidationTraits } from "../../layouts/invalidation/index.ts";

/** What a VT-d unit can do, read from its capability registers (VT-d specification, 11.4.2 and 11.4.3). */
export interface VtdCapabilities {
  /** CM: entries that were absent are remembered, so new ones need an invalidation too. */
  readonly cachingMode: boolean;
  /** RWBF: new entries are seen only after a write-buffer flush. */
  readonly writeBuffer: boolean;
  /** How ranges are invalidated; slots are wide in scalable mode. */
  readonly invalidation: VtdInvalidationTraits;
  /** NFR + 1. */
  readonly faultRecords: number;
  /** Largest number of second-stage levels (SAGAW). */
  readonly secondStageLevels: readonly number[];
  /** FS5LP: first-stage tables may have five levels. */
  readonly fiveLevelFirstStage: boolean;
  /** Number of domain ids. */
  readonly domainIds: number;
  /** QI: it takes invalidations from a queue in memory. */
  readonly queuedInvalidation: boolean;
  /** DT: devices may cache translations (ATS). */
  readonly deviceTlb: boolean;
  /** PT: requests can be let through untranslated. */
  readonly passThrough: boolean;
  /** NEST: a guest's first stage can be translated by a second one. Scalable mode. */
  readonly nested: boolean;
  /** PRS: devices may ask for pages. Scalable mode. */
  readonly pageRequests: boolean;
  /** SMTS: devices have PASID tables. */
  readonly scalableMode: boolean;
  /** SSTS: second-stage tables in scalable mode; legacy mode has no others. */
  readonly secondStage: boolean;
  /** FSTS: first-stage tables. Scalable mode. */
  readonly firstStage: boolean;
  /** Bits of a PASID; 0 if requests cannot carry one. */
  readonly pasidBits: number;
  /** DIT: device-TLB invalidations must name the physical function. */
  readonly needsPhysicalFunction: boolean;
  /** SMPWC: walks of scalable mode can snoop the caches. */
  readonly walkSnoop: boolean;
}

/** `scalable`: the unit will run in scalable mode. */
export function readCapabilities(capability: bigint, extended: bigint, scalable: boolean): VtdCapabilities {
  const cap = (high: bigint, low: bigint): number => Number((capability >> low) & ((1n << (high - low + 1n)) - 1n));
  const ecap = (high: bigint, low: bigint): number => Number((extended >> low) & ((1n << (high - low + 1n)) - 1n));
  const has = (bit: bigint): boolean => cap(bit, bit) === 1;
  const also = (bit: bigint): boolean => ecap(bit, bit) === 1;
  const scalableMode = also(43n);
  return {
    cachingMode: has(7n),
    writeBuffer: has(4n),
    invalidation: {
      slotWords: scalable ? 8 : 4,
      pageSelective: has(39n),
      maxOrder: cap(53n, 48n),
      drainReads: has(55n),
      drainWrites: has(54n),
    },
    faultRecords: cap(47n, 40n) + 1,
    secondStageLevels: [3, 4, 5].filter((levels) => (cap(12n, 8n) >> (levels - 2)) & 1),
    fiveLevelFirstStage: has(60n),
    domainIds: 2 ** (4 + 2 * cap(2n, 0n)),
    queuedInvalidation: also(1n),
    deviceTlb: also(2n),
    passThrough: also(6n),
    nested: also(26n),
    pageRequests: also(29n),
    scalableMode,
    secondStage: !scalable || also(46n),
    firstStage: scalable && also(47n),
    pasidBits: scalable && also(40n) ? ecap(39n, 35n) + 1 : 0,
    needsPhysicalFunction: also(41n),
    walkSnoop: also(48n),
  };
}
