/**
 * x86-64 tables, 4 and 5 levels: VT-d first stage and AMD guest tables.
 *
 * A leaf is present, user and accessed; a writable one is dirty from birth, so dirty tracking is not offered. Write-only
 * cannot be expressed and becomes read-write. Entries with an encryption bit carry it in tables and non-MMIO leaves.
 * Specified by: Intel SDM volume 3, 4.5; VT-d specification, 9.7; behaviour of Linux 7.2.
 */
import { ERRNO } from "../../base/index.ts";
import { allowedSizes, MMIO, READ, type TableLayout, WRITE } from "./layout.ts";

/** Levels, page sizes and encryption bit of an x86-64 table. */
export interface X86Options {
  /** 4 unless said. */
  readonly levels?: 4 | 5;
  /** Sign-extended addresses: both halves are accepted. Otherwise only the lower half, which is the DMA aperture. */
  readonly signExtended?: boolean;
  /** Width of output (physical) addresses in bits; 52 unless said. */
  readonly outputBits?: number;
  /** Leaf sizes to use, each as log2 of its pages of 4 KiB; all that the format has unless said. */
  readonly leafSizes?: readonly number[];
  /** The unit's walker does not look into the CPU's caches: pointers to tables carry a mark that they have been written back. */
  readonly incoherentWalker?: boolean;
  /** Which address bit (32 and up) marks encrypted memory. */
  readonly encryptionBit?: number;
}

const P = 1;
const RW = 2;
const U = 4;
const A = 32;
const D = 64;
const PS = 128;
/** Software mark: this pointer has been written back for a walker that does not snoop. */
const FLUSHED = 1 << 9;

/**
 * x86-64 page tables, which VT-d's first stage and AMD's second version walk (Intel SDM volume 3, 4.5; VT-d
 * specification, 9.7).
 */
export function x86_64(options: X86Options = {}): TableLayout {
  const levels = options.levels ?? 4;
  const outputBits = options.outputBits ?? 52;
  const width = 12 + 9 * levels;
  const inputBits = options.signExtended ? width : width - 1;
  const encryption = options.encryptionBit === undefined ? 0 : 1 << (options.encryptionBit - 32);
  return {
    name: "x86-64",
    source: "Intel SDM volume 3, 4.5; VT-d specification, 9.7 (first stage)",
    rules: "generic",
    granuleLg: 0,
    indexBits: 9,
    topIndexBits: 9,
    topLevel: levels - 1,
    maxTopLevel: levels - 1,
    inputBits,
    inputs: options.signExtended ? "sign-extended" : "low",
    outputBits,
    leafSizes: allowedSizes([0, 9, 18], options.leafSizes, inputBits, outputBits),
    presentMask: P,
    tableMask: PS,
    tableMatch: [0, 0, 0, 0, 0],
    contiguousLow: 0,
    contiguousHigh: 0,
    addressShift: 12,
    addressLowMask: -4096,
    addressHighMask: 0xfffff & ~encryption,
    addressFold: false,
    placementLow: -4096,
    placementHigh: 0xfffff,
    table: () => ({ low: P | RW | U | A | (options.incoherentWalker ? FLUSHED : 0), high: encryption }),
    leaf: (prot) =>
      (prot & (READ | WRITE)) === 0
        ? -ERRNO.EINVAL
        : { low: P | U | A | (prot & WRITE ? RW | D : 0), high: prot & MMIO ? 0 : encryption },
    size: (lg) => ({ low: lg > 0 ? PS : 0, high: 0 }),
    sizeOf: (_low, _high, level) => 9 * level,
    prot: (low) => READ | (low & RW ? WRITE : 0),
    machineLow: A | D,
  };
}
