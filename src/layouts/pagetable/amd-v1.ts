/**
 * AMD v1 (host) tables: 3 levels that grow to 6, and leaves of every power of two.
 *
 * A leaf of a size between two levels fills 2^n items of the lower one, all with the same value; its size is encoded in
 * the low bits of its address: ones, then a zero. The next-level field names the level of the table pointed at.
 * Specified by: AMD I/O Virtualization Technology specification, 2.2.3; behaviour of Linux 7.2.
 */
import { ERRNO } from "../../base/index.ts";
import { allowedSizes, MMIO, READ, type TableLayout, WRITE } from "./layout.ts";

/** Variants of the AMD v1 format. */
export interface AmdV1Options {
  /** Level of the first top table: 2 (three levels) unless said. */
  readonly topLevel?: number;
  /** Width of input addresses in bits: 64 unless said. */
  readonly inputBits?: number;
  /** Width of output (physical) addresses in bits; 52 unless said. */
  readonly outputBits?: number;
  /** Leaf sizes to use, each as log2 of its pages of 4 KiB; all that the format has unless said. */
  readonly leafSizes?: readonly number[];
  /** Leaves snoop; as Linux does unless said. */
  readonly forceCoherence?: boolean;
  /** Which address bit (32 and up) marks encrypted memory; none unless said. */
  readonly encryptionBit?: number;
}

const PR = 1;
const D = 1 << 6;
const NEXT_LEVEL = 7 << 9;
const FC = 1 << 28;
const IR = 1 << 29;
const IW = 1 << 30;

/** The bits below the address of a leaf of 2^lg pages: `lg - 1` ones from bit 12, then a zero. */
function sizeWords(lg: number): { low: number; high: number } {
  if (lg % 9 === 0) return { low: 0, high: 0 };
  const ones = 2 ** (lg - 1) - 1;
  return { low: NEXT_LEVEL | ((ones << 12) & -4096), high: Math.floor(ones / 2 ** 20) };
}

/** Trailing ones of the page number, plus one. */
function encodedSize(low: number, high: number): number {
  const zeros = ~(low >>> 12) & 0xfffff;
  if (zeros !== 0) return 32 - Math.clz32(zeros & -zeros);
  const above = ~high & 0xfffff;
  return 52 - Math.clz32(above & -above);
}

/** AMD IOMMU page tables, version 1 (AMD I/O virtualisation specification, 2.2.3). The tree grows at its top. */
export function amdV1(options: AmdV1Options = {}): TableLayout {
  const inputBits = options.inputBits ?? 64;
  const outputBits = options.outputBits ?? 52;
  const topLevel = options.topLevel ?? 2;
  const encryption = options.encryptionBit === undefined ? 0 : 1 << (options.encryptionBit - 32);
  const coherent = options.forceCoherence === false ? 0 : FC;
  const legal = Array.from({ length: 40 }, (_, lg) => lg).filter((lg) => lg !== 27);
  return {
    name: "amd-v1",
    source: "AMD I/O Virtualization Technology specification, 2.2.3",
    rules: "generic",
    granuleLg: 0,
    indexBits: 9,
    topIndexBits: 9,
    topLevel,
    maxTopLevel: Math.ceil((inputBits - 12) / 9) - 1,
    inputBits,
    inputs: "low",
    outputBits,
    leafSizes: allowedSizes(legal, options.leafSizes, inputBits, outputBits),
    presentMask: PR,
    tableMask: NEXT_LEVEL,
    tableMatch: [-1, 1 << 9, 2 << 9, 3 << 9, 4 << 9, 5 << 9],
    contiguousLow: NEXT_LEVEL,
    contiguousHigh: 0,
    addressShift: 12,
    addressLowMask: -4096,
    addressHighMask: 0xfffff & ~encryption,
    addressFold: false,
    placementLow: -4096,
    placementHigh: 0xfffff,
    table: (level) => ({ low: PR | (level << 9), high: IR | IW | encryption }),
    leaf: (prot) =>
      (prot & (READ | WRITE)) === 0
        ? -ERRNO.EINVAL
        : {
            low: PR,
            high: coherent | (prot & READ ? IR : 0) | (prot & WRITE ? IW : 0) | (prot & MMIO ? 0 : encryption),
          },
    size: sizeWords,
    sizeOf: (low, high, level) =>
      (low & NEXT_LEVEL) === NEXT_LEVEL ? encodedSize(low, high & ~encryption) : 9 * level,
    prot: (_low, high) => (high & IR ? READ : 0) | (high & IW ? WRITE : 0),
    dirty: { mask: D, match: D, clean: (low) => low & ~D, soil: (low) => low | D, strict: false },
    machineLow: D | (1 << 5),
  };
}
