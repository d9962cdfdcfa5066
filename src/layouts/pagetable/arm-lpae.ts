/**
 * Arm LPAE tables, stage 1 and 2, with pages of 4, 16 or 64 KiB.
 *
 * Arm counts levels downward; here level 0 is the smallest, as everywhere. The granule follows the CPU's page size (4
 * KiB) where the unit has it, else the next smaller, else the next larger. The contiguous hint is not used.
 * Promises: {@link armGeometry} answers `undefined` for what cannot be configured.
 * Specified by: Arm architecture reference manual, D8; behaviour of Linux 7.2.
 */
import { ERRNO } from "../../base/index.ts";
import { CACHE, MMIO, NOEXEC, PRIVILEGED, READ, sizesOfBitmap, type TableLayout, WRITE } from "./layout.ts";

/** Stage, page sizes and address widths of an Arm table. */
export interface ArmOptions {
  /** 1: tables of a process or guest; 2: tables of the host below them. */
  readonly stage: 1 | 2;
  /** Bytes, a bitmap of what the unit can do. */
  readonly pageSizes: bigint;
  /** Width of input addresses in bits; at most 48, or 52 with pages of 64 KiB. */
  readonly inputBits: number;
  /** Width of output addresses in bits: 32, 36, 40, 42, 44, 48, or 52 with pages of 64 KiB. */
  readonly outputBits: number;
  /** The unit's walker does not look into the CPU's caches: pointers to tables carry a mark that they have been written back. */
  readonly incoherentWalker?: boolean;
  /** Upper half of the address space (TTBR1); stage 1. */
  readonly upperHalf?: boolean;
  /** DBM: the unit makes a leaf writable, and so dirty, at the first write. Stage 1. */
  readonly hardwareDirty?: boolean;
  /** NS in leaves: they point to memory of the non-secure world. Stage 1. */
  readonly nonSecure?: boolean;
  /** Stage 2 forces write-back by its own attribute encoding. */
  readonly forcedWriteBack?: boolean;
}

/** How an Arm table is cut: levels, start level, pages of the top. */
export interface ArmGeometry {
  /** Sizes of leaves, bytes, as a bitmap: the granule and the blocks above it. */
  readonly pageSizes: bigint;
  /** Width of input addresses, at most 48, or 52 with pages of 64 KiB. */
  readonly inputBits: number;
  /** Width of output addresses, one of those that PS can say. */
  readonly outputBits: number;
  /** log2 of the smallest page in bytes: 12, 14 or 16. */
  readonly granuleBits: number;
  /** As Arm counts it: 0 to 3. */
  readonly startLevel: number;
  /** Index bits of the top table; more than in others where stage 2 puts several side by side. */
  readonly topIndexBits: number;
  /** TCR (stage 1) or VTCR (stage 2) fields. */
  readonly control: {
    /** PS: width of output addresses, by the specification's code. */
    ps: number;
    /** TG0: the granule, by the specification's code. */
    tg: number;
    /** SH0: shareability of table walks. */
    sh: number;
    /** ORGN0: outer cacheability of table walks. */
    orgn: number;
    /** IRGN0: inner cacheability of table walks. */
    irgn: number;
    /** T0SZ: 64 less the width of input addresses. */
    tsz: number;
    /** SL0: start level, by the specification's code; stage 2 only. */
    sl?: number;
  };
  /** MAIR: eight memory attributes, of which leaves name one by its index. */
  readonly mair: bigint;
}

const MAIR = 0xffff_ffff_f404_ff44n;
const PS_CODE: Readonly<Record<number, number>> = { 32: 0, 36: 1, 40: 2, 42: 3, 44: 4, 48: 5, 52: 6 };

/** Start level, top table and control fields for what is asked; `undefined` when it cannot be done. */
export function armGeometry(options: ArmOptions): ArmGeometry | undefined {
  const granule = [12, 14, 16].find((bits) => (options.pageSizes >> BigInt(bits)) & 1n);
  if (granule === undefined) return undefined;
  const legal =
    granule === 12
      ? 0x4020_1000n
      : granule === 14
        ? 0x200_4000n
        : 0x2001_0000n | (options.outputBits > 48 ? 1n << 42n : 0n);
  const limit = granule === 16 ? 52 : 48;
  const inputBits = Math.min(options.inputBits, limit);
  const outputBits = Math.min(options.outputBits, limit);
  const ps = PS_CODE[outputBits];
  if (ps === undefined) return undefined;
  const bits = granule - 3;
  const levels = Math.ceil((inputBits - granule) / bits);
  let startLevel = 4 - levels;
  let topIndexBits = inputBits - granule - bits * (levels - 1);
  let sl: number | undefined;
  if (options.stage === 2) {
    const concatenate =
      (granule === 12 && (outputBits === 40 || outputBits === 42) && startLevel === 0) ||
      (granule === 14 && ((startLevel === 0 && inputBits === 48) || (startLevel === 1 && outputBits === 40)));
    if (concatenate) {
      topIndexBits += bits;
      if (topIndexBits > bits + 4) return undefined;
      startLevel++;
    }
    sl = ~(startLevel + (granule === 12 ? 1 : 0)) & 3;
  }
  const coherent = !options.incoherentWalker;
  const lower = { 12: 0, 14: 2, 16: 1 }[granule]!;
  const upper = { 12: 2, 14: 1, 16: 3 }[granule]!;
  return {
    pageSizes: options.pageSizes & legal,
    inputBits,
    outputBits,
    granuleBits: granule,
    startLevel,
    topIndexBits,
    control: {
      ps,
      tg: options.upperHalf ? upper : lower,
      sh: coherent ? 3 : 2,
      orgn: coherent ? 1 : 0,
      irgn: coherent ? 1 : 0,
      tsz: 64 - inputBits,
      ...(sl !== undefined && { sl }),
    },
    mair: MAIR,
  };
}

const VALID = 1;
const NOT_BLOCK = 2;
const AF = 1 << 10;
const NG = 1 << 11;
const S1_UNPRIVILEGED = 1 << 6;
const S1_READ_ONLY = 1 << 7;
const DBM = 1 << 19;
const XN = 3 << 21;
const SYNCED = 1 << 23;

function attributes(options: ArmOptions, prot: number): { low: number; high: number } | number {
  if ((prot & (READ | WRITE)) === 0) return -ERRNO.EINVAL;
  const shareable = (prot & CACHE ? 3 : 2) << 8;
  let low = VALID | AF | shareable;
  let high = prot & NOEXEC ? XN : 0;
  if (options.stage === 1) {
    low |= NG | (prot & PRIVILEGED ? 0 : S1_UNPRIVILEGED) | (options.nonSecure ? 1 << 5 : 0);
    low |= prot & MMIO ? 2 << 2 : prot & CACHE ? 1 << 2 : 0;
    if ((prot & WRITE) === 0) low |= S1_READ_ONLY;
    else if (options.hardwareDirty) high |= DBM;
  } else {
    low |= (prot & READ ? 1 << 6 : 0) | (prot & WRITE ? 1 << 7 : 0);
    const memory = prot & MMIO ? 1 : prot & CACHE ? (options.forcedWriteBack ? 6 : 15) : 5;
    low |= memory << 2;
  }
  return { low, high };
}

/** The layout of a configuration that {@link armGeometry} accepts, else `undefined`. */
export function armLpae(options: ArmOptions): TableLayout | undefined {
  const geometry = armGeometry(options);
  if (geometry === undefined) return undefined;
  const { granuleBits } = geometry;
  const granuleLg = granuleBits - 12;
  const indexBits = granuleBits - 3;
  const topLevel = 3 - geometry.startLevel;
  const fold = granuleBits === 16;
  const lowMask = granuleBits === 12 ? -4096 : granuleBits === 14 ? -16384 : -65536;
  return {
    name: `arm-stage${options.stage}-${2 ** (granuleBits - 10)}k`,
    source: "Arm architecture reference manual, D8.3",
    rules: "legacy",
    granuleLg,
    indexBits,
    topIndexBits: geometry.topIndexBits,
    topLevel,
    maxTopLevel: topLevel,
    inputBits: geometry.inputBits,
    inputs: options.upperHalf ? "upper" : "low",
    outputBits: geometry.outputBits,
    leafSizes: sizesOfBitmap(geometry.pageSizes),
    presentMask: VALID,
    tableMask: NOT_BLOCK,
    tableMatch: [-1, NOT_BLOCK, NOT_BLOCK, NOT_BLOCK],
    contiguousLow: 0,
    contiguousHigh: 0,
    addressShift: 12,
    addressLowMask: lowMask,
    addressHighMask: 0xffff,
    addressFold: fold,
    placementLow: granuleBits === 14 ? -16384 : -4096,
    placementHigh: 0xffff,
    table: () => ({
      low: VALID | NOT_BLOCK,
      high: (options.nonSecure ? -0x8000_0000 : 0) | (options.incoherentWalker ? SYNCED : 0),
    }),
    leaf: (prot) => attributes(options, prot),
    size: (lg) => ({ low: lg === granuleLg ? NOT_BLOCK : 0, high: 0 }),
    sizeOf: (_low, _high, level) => granuleLg + indexBits * level,
    prot: (low, high) => shownProt(options, low, high),
    ...(options.stage === 1 && {
      dirty: {
        mask: S1_READ_ONLY,
        match: 0,
        highMask: DBM,
        clean: (low: number): number => low | S1_READ_ONLY,
        soil: (low: number): number => low & ~S1_READ_ONLY,
        strict: true,
      },
    }),
    machineLow: options.hardwareDirty ? S1_READ_ONLY : 0,
  };
}

function shownProt(options: ArmOptions, low: number, high: number): number {
  const noExecute = (high & XN) === 0 ? 0 : NOEXEC;
  if (options.stage === 2) {
    const memory = (low >>> 2) & 15;
    const type = memory === 1 ? MMIO : memory === 15 || memory === 6 ? CACHE : 0;
    return (low & (1 << 6) ? READ : 0) | (low & (1 << 7) ? WRITE : 0) | noExecute | type;
  }
  const writable = (low & S1_READ_ONLY) === 0 || (high & DBM) !== 0;
  const index = (low >>> 2) & 7;
  return (
    READ |
    (writable ? WRITE : 0) |
    noExecute |
    (index === 2 ? MMIO : index === 1 ? CACHE : 0) |
    (low & S1_UNPRIVILEGED ? 0 : PRIVILEGED)
  );
}
