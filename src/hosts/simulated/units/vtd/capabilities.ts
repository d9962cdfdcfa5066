/**
 * What a simulated VT-d unit can do, as its capability registers say it.
 *
 * Specified by: VT-d specification, 11.4.2 and 11.4.3.
 */

export interface VtdTraits {
  /** CM: absent entries are cached too. */
  readonly cachingMode?: boolean;
  /** RWBF: new entries are seen only after a write-buffer flush. */
  readonly writeBuffer?: boolean;
  /** PSI and MAMV: page-selective invalidation of the second stage, and its largest order. On, and 18. */
  readonly pageSelective?: boolean;
  /** MAMV: largest order of a page-selective invalidation. 18. */
  readonly maxOrder?: number;
  /** Levels of second-stage tables, of 3 to 5. 3 and 4. */
  readonly secondStageLevels?: readonly number[];
  /** FL5LP: first-stage tables may have five levels. Off. */
  readonly fiveLevelFirstStage?: boolean;
  /** Fault records, 1 to 256. 1, as on most machines. */
  readonly faultRecords?: number;
  /** Without it everything else of scalable mode is absent. Off. */
  readonly scalableMode?: boolean;
  /** NEST: a first stage within a second one. Off. */
  readonly nested?: boolean;
  /** Bits of a PASID, up to 20; 0 if there are none. */
  readonly pasidBits?: number;
  /** Device TLBs, page requests. Off. */
  readonly deviceTlb?: boolean;
  /** PRS: devices may ask for pages. Off. */
  readonly pageRequests?: boolean;
  /** PT: a context or PASID entry may let requests through untranslated. Off. */
  readonly passThrough?: boolean;
  /** DIT: device-TLB invalidations must name the physical function. Off. */
  readonly needsPhysicalFunction?: boolean;
  /** SMPWC: walks of scalable mode snoop the caches if an entry says so. Off. */
  readonly walkSnoop?: boolean;
}

/** CAP and ECAP. Bit positions are the specification's; the stack reads them with its own. */
export function capabilityWords(traits: VtdTraits): { readonly capability: bigint; readonly extended: bigint } {
  const flag = (bit: bigint, on: boolean | undefined): bigint => (on ? 1n << bit : 0n);
  const field = (low: bigint, value: number): bigint => BigInt(value) << low;
  const scalable = traits.scalableMode === true;
  const widths = (traits.secondStageLevels ?? [3, 4]).reduce((bits, levels) => bits | (1 << (levels - 2)), 0);
  const pasidBits = scalable ? (traits.pasidBits ?? 0) : 0;
  return {
    capability:
      field(0n, 6) | // ND: 2^16 domain ids
      flag(4n, traits.writeBuffer) |
      flag(7n, traits.cachingMode) |
      field(8n, widths) |
      field(16n, 47) | // MGAW: 48 bits
      flag(34n, true) |
      flag(35n, true) |
      flag(39n, traits.pageSelective ?? true) |
      field(40n, (traits.faultRecords ?? 1) - 1) |
      field(48n, traits.maxOrder ?? 18) |
      flag(54n, true) | // write and read drain
      flag(55n, true) |
      flag(56n, scalable) |
      flag(60n, traits.fiveLevelFirstStage),
    extended:
      flag(0n, true) | // walks snoop the caches
      flag(1n, true) | // queued invalidation
      flag(2n, traits.deviceTlb) |
      flag(6n, traits.passThrough ?? true) |
      flag(26n, scalable && traits.nested) |
      flag(29n, scalable && traits.pageRequests) |
      field(35n, Math.max(0, pasidBits - 1)) |
      flag(40n, pasidBits > 0) |
      flag(41n, traits.needsPhysicalFunction) |
      flag(43n, scalable) |
      flag(46n, scalable) |
      flag(47n, scalable) |
      flag(48n, scalable && traits.walkSnoop),
  };
}
