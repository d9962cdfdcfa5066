/**
 * What a page-table format is: masks, shifts and two small functions. Nothing about walking.
 *
 * Idea: an entry is `address field | attributes of the leaf | bits of its size`, all of them numbers that depend only on
 * the format, so a walker needs no call per entry and is the same code, with the same speed, for every format.
 * Addresses are numbers of 4 KiB pages; sizes are `lg`, the binary logarithm of a number of 4 KiB pages; level 0 is the
 * smallest. Words are signed 32-bit numbers.
 * Not for: anything that a table contains at run time.
 */
import type { PhysPage } from "../../base/index.ts";

/** What a mapping allows and how it behaves: a set of bits. */
export const READ = 1;
/** Permission: the device may write. */
export const WRITE = 2;
/** The device's accesses look into the CPU's caches. */
export const CACHE = 4;
/** Permission: no instruction fetches. */
export const NOEXEC = 8;
/** The target is a device's memory. */
export const MMIO = 16;
/** Permission: privileged accesses alone. */
export const PRIVILEGED = 32;
/** How many different sets there are. */
export const PROT_COUNT = 64;

/** The two halves of an entry or of a part of one. */
export interface Words {
  /** Bits 31:0, as a signed 32-bit integer. */
  readonly low: number;
  /** Bits 63:32, as a signed 32-bit integer. */
  readonly high: number;
}

/** One format under one configuration. */
export interface TableLayout {
  /** Which format it is, for messages and look-ups. */
  readonly name: string;
  /** The specification it is from. */
  readonly source: string;
  /** "generic": Linux's generic tables. "legacy": one call per size, as the Arm driver is called. */
  readonly rules: "generic" | "legacy";
  /** log2 of the 4 KiB pages in the smallest page: 0, 2 or 4. */
  readonly granuleLg: number;
  /** Index bits of every table but the top one. */
  readonly indexBits: number;
  /** Index bits of the top table at `topLevel`; more than `indexBits` where Arm puts tables side by side. */
  readonly topIndexBits: number;
  /** Level of the top table when the tree is made. */
  readonly topLevel: number;
  /** Above `topLevel` only where the top grows. */
  readonly maxTopLevel: number;
  /** Width of an input address (bytes). */
  readonly inputBits: number;
  /** Which addresses of that width exist: from 0 up; both halves of a sign-extended space; the upper half alone. */
  readonly inputs: "low" | "sign-extended" | "upper";
  /** Bits of an output address (bytes). */
  readonly outputBits: number;
  /** Sizes of leaves, ascending. */
  readonly leafSizes: readonly number[];
  /** Present when any of these bits of the low word is set. */
  readonly presentMask: number;
  /** Above level 0: an entry is a table when `(low & tableMask) === tableMatch[level]`. */
  readonly tableMask: number;
  /** By level, what a pointer leaves under `tableMask`; level 0 has no pointers. */
  readonly tableMatch: readonly number[];
  /**
   * A leaf of several items has any of these bits of the low word, and no other leaf does; 0: none is known by them.
   */
  readonly contiguousLow: number;
  /** The same, of the high word. With 0 in both every leaf is one item. */
  readonly contiguousHigh: number;
  /** Bit of the low word at which the page number begins. */
  readonly addressShift: 10 | 12;
  /** Bits of the low word that hold the lower part of the page number. */
  readonly addressLowMask: number;
  /** Bits of the high word that hold the rest of it. */
  readonly addressHighMask: number;
  /** Address bits 51:48 sit in bits 15:12 (Arm with 64 KiB pages). */
  readonly addressFold: boolean;
  /**
   * Bits of the low word that depend on where things lie, encryption included: a picture independent of placement
   * leaves them out.
   */
  readonly placementLow: number;
  /** The same, of the high word. */
  readonly placementHigh: number;
  /** Bits of a pointer from `level` (1 and up) to the table below it, as the mapper writes it. */
  table(level: number): Words;
  /** Attributes of a leaf, without its size; a negative errno when the format cannot express `prot`. */
  leaf(prot: number): Words | number;
  /** Bits that say the size of a leaf, for every legal `lg`. */
  size(lg: number): Words;
  /** Size of the leaf `low`, `high` found at `level`. */
  sizeOf(low: number, high: number, level: number): number;
  /** Permissions and behaviour that a leaf shows. */
  prot(low: number, high: number): number;
  /** Dirty bits: set by the machine when it writes; absent where the format has none that software may read. */
  readonly dirty?: DirtyRule;
  /** Bits that a machine sets in a live leaf; ignored when leaves are compared. */
  readonly machineLow: number;
}

/** Which bits of an entry say that the device wrote there. */
export interface DirtyRule {
  /** A leaf is dirty when `(low & mask) === match` and, if given, `high & highMask` is set. */
  readonly mask: number;
  /** What `mask` leaves of the low word of a dirty leaf. */
  readonly match: number;
  /** Bits of the high word, one of which must be set as well; absent: the low word says it all. */
  readonly highMask?: number;
  /** Makes the low word clean, and dirty again. */
  clean(low: number): number;
  /** The low word of an entry whose page was written. */
  soil(low: number): number;
  /** A query over a hole fails with EINVAL. */
  readonly strict: boolean;
}

/** Level whose tables hold leaves of size `lg`. */
export const levelOfSize = (layout: TableLayout, lg: number): number =>
  Math.floor((lg - layout.granuleLg) / layout.indexBits);

/** log2 of the pages that one item at `level` covers. */
export const itemLg = (layout: TableLayout, level: number): number => layout.granuleLg + level * layout.indexBits;

/** Output page of an entry: of a table, or of a leaf of size `lg`. Exact up to 2^52. */
export function outputOf(layout: TableLayout, low: number, high: number, lg = 0): PhysPage {
  const shift = layout.addressShift;
  const pagesAbove = shift === 12 ? 0x10_0000 : 0x40_0000; // pages for one in the high word
  let page = ((low & layout.addressLowMask) >>> shift) + ((high & layout.addressHighMask) >>> 0) * pagesAbove;
  if (layout.addressFold) page += ((low >>> 12) & 15) * 2 ** 36;
  if (lg === 0) return page as PhysPage;
  const span = 2 ** lg;
  return (Math.floor(page / span) * span) as PhysPage;
}

/** `sizes` in bytes (a bitmap) as `lg`s, ascending. */
export function sizesOfBitmap(bitmap: bigint): number[] {
  const sizes: number[] = [];
  for (let bit = 12; bit < 64; bit++) if ((bitmap >> BigInt(bit)) & 1n) sizes.push(bit - 12);
  return sizes;
}

/** The legal sizes that are wanted and are less than half of the input addresses and within the output addresses. */
export function allowedSizes(
  legal: readonly number[],
  wanted: readonly number[] | undefined,
  inputBits: number,
  outputBits: number,
): number[] {
  return legal.filter(
    (lg) => lg + 12 < Math.min(inputBits - 1, outputBits) + (inputBits >= 64 ? 1 : 0) && (wanted?.includes(lg) ?? true),
  );
}
