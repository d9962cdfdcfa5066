/**
 * RISC-V tables: Sv39, Sv48 and Sv57, with 64 KiB entries (Svnapot) and memory types (Svpbmt) where the unit has them.
 *
 * Leaves exist at every level. A leaf is accessed, and dirty when writable, from birth. A 64 KiB entry fills 16 items.
 * Specified by: RISC-V privileged architecture, 12.3 to 12.8; RISC-V IOMMU 1.0, 3.3; behaviour of Linux 7.2.
 */
import { ERRNO } from "../../base/index.ts";
import { allowedSizes, CACHE, MMIO, NOEXEC, READ, type TableLayout, WRITE } from "./layout.ts";

/** Mode and extensions of a RISC-V table. */
export interface RiscvOptions {
  /** Three, four or five levels; Sv48 unless said. */
  readonly mode?: "Sv39" | "Sv48" | "Sv57";
  /** Sign-extended addresses: both halves are accepted. */
  readonly signExtended?: boolean;
  /** Width of output (physical) addresses in bits; 56 unless said. */
  readonly outputBits?: number;
  /** Leaf sizes to use, each as log2 of its pages of 4 KiB; all that the format has unless said. */
  readonly leafSizes?: readonly number[];
  /** Leaves of 64 KiB, made of 16 equal entries. Off unless said. */
  readonly svnapot?: boolean;
  /** Entries say the memory type of device memory. Off unless said. */
  readonly svpbmt?: boolean;
}

const V = 1;
const R = 2;
const W = 4;
const X = 8;
const U = 16;
const A = 64;
const D = 128;
const N = -0x8000_0000;
const IO = 1 << 30;
const NON_CACHED = 1 << 29;
const LEVELS = { Sv39: 3, Sv48: 4, Sv57: 5 } as const;

/**
 * RISC-V Sv39, Sv48 and Sv57 page tables, with Svnapot and Svpbmt where asked (RISC-V privileged specification, 10.4 to
 * 10.6).
 */
export function riscv(options: RiscvOptions = {}): TableLayout {
  const levels = LEVELS[options.mode ?? "Sv48"];
  const inputBits = 12 + 9 * levels;
  const outputBits = options.outputBits ?? 56;
  const legal = [0, ...(options.svnapot ? [4] : []), 9, 18, 27, 36].filter((lg) => lg < 9 * levels);
  return {
    name: `riscv-${(options.mode ?? "Sv48").toLowerCase()}`,
    source: "RISC-V privileged architecture, 12.4 to 12.6; RISC-V IOMMU 1.0, 3.3",
    rules: "generic",
    granuleLg: 0,
    indexBits: 9,
    topIndexBits: 9,
    topLevel: levels - 1,
    maxTopLevel: levels - 1,
    inputBits,
    inputs: options.signExtended ? "sign-extended" : "low",
    outputBits,
    leafSizes: allowedSizes(legal, options.leafSizes, inputBits, outputBits),
    presentMask: V,
    tableMask: R | W | X,
    tableMatch: [-1, 0, 0, 0, 0],
    contiguousLow: 0,
    contiguousHigh: N,
    addressShift: 10,
    addressLowMask: -1024,
    addressHighMask: 0x3fffff,
    addressFold: false,
    placementLow: -1024,
    placementHigh: 0x3fffff,
    table: () => ({ low: V, high: 0 }),
    leaf: (prot) => {
      const readWrite = (prot & WRITE ? W | R | D : 0) | (prot & READ ? R : 0);
      const executable = prot & NOEXEC ? 0 : X;
      if ((prot & (READ | WRITE)) === 0) return -ERRNO.EINVAL;
      const memory = !options.svpbmt ? 0 : prot & MMIO ? IO : prot & CACHE ? 0 : NON_CACHED;
      return { low: V | U | A | readWrite | executable, high: memory };
    },
    size: (lg) => (lg === 4 ? { low: 1 << 13, high: N } : { low: 0, high: 0 }),
    sizeOf: (_low, high, level) => ((high & N) !== 0 ? 4 : 9 * level),
    prot: (low, high) =>
      (low & R ? READ : 0) | (low & W ? WRITE : 0) | (low & X ? 0 : NOEXEC) | ((high & IO) !== 0 ? MMIO : 0),
    machineLow: A | D,
  };
}
