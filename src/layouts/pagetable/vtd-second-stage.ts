/**
 * VT-d second-stage tables, 3 to 5 levels.
 *
 * There is no present bit: an entry that permits neither reading nor writing is absent. The machine keeps dirty bits.
 * Specified by: VT-d specification, 9.8; behaviour of Linux 7.2.
 */
import { ERRNO } from "../../base/index.ts";
import { allowedSizes, READ, type TableLayout, WRITE } from "./layout.ts";

/** Levels and snooping of a second-stage table. */
export interface VtdSecondStageOptions {
  /** 4 unless said. */
  readonly levels?: 3 | 4 | 5;
  /** Width of output (physical) addresses in bits; 52 unless said. */
  readonly outputBits?: number;
  /** Leaf sizes to use, each as log2 of its pages of 4 KiB; all that the format has unless said. */
  readonly leafSizes?: readonly number[];
  /** The unit's walker does not look into the CPU's caches: pointers to tables carry a mark that they have been written back. */
  readonly incoherentWalker?: boolean;
  /** Every leaf snoops the caches. */
  readonly forceSnoop?: boolean;
  /** Read-only leaves are refused, as a unit with the erratum needs. */
  readonly forceWriteable?: boolean;
}

const PS = 1 << 7;
const D = 1 << 9;
const FLUSHED = 1 << 10;
const SNP = 1 << 11;

/**
 * Intel VT-d second-stage page tables (VT-d specification, 9.8): 4 KiB, 2 MiB and 1 GiB, dirty bits where the unit has
 * them.
 */
export function vtdSecondStage(options: VtdSecondStageOptions = {}): TableLayout {
  const levels = options.levels ?? 4;
  const outputBits = options.outputBits ?? 52;
  const inputBits = 12 + 9 * levels;
  return {
    name: "vtd-second-stage",
    source: "VT-d specification, 9.8 (second stage)",
    rules: "generic",
    granuleLg: 0,
    indexBits: 9,
    topIndexBits: 9,
    topLevel: levels - 1,
    maxTopLevel: levels - 1,
    inputBits,
    inputs: "low",
    outputBits,
    leafSizes: allowedSizes([0, 9, 18], options.leafSizes, inputBits, outputBits),
    presentMask: READ | WRITE,
    tableMask: PS,
    tableMatch: [0, 0, 0, 0, 0],
    contiguousLow: 0,
    contiguousHigh: 0,
    addressShift: 12,
    addressLowMask: -4096,
    addressHighMask: 0xfffff,
    addressFold: false,
    placementLow: -4096,
    placementHigh: 0xfffff,
    table: () => ({ low: READ | WRITE | (options.incoherentWalker ? FLUSHED : 0), high: 0 }),
    leaf: (prot) =>
      (prot & (READ | WRITE)) === 0 || (options.forceWriteable && (prot & WRITE) === 0)
        ? -ERRNO.EINVAL
        : { low: (prot & (READ | WRITE)) | (options.forceSnoop ? SNP : 0), high: 0 },
    size: (lg) => ({ low: lg > 0 ? PS : 0, high: 0 }),
    sizeOf: (_low, _high, level) => 9 * level,
    prot: (low) => low & (READ | WRITE),
    dirty: { mask: D, match: D, clean: (low) => low & ~D, soil: (low) => low | D, strict: false },
    machineLow: D | (1 << 8),
  };
}
