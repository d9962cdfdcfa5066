/**
 * The best size of the blocks of a page list: the largest that the device has and that the memory allows.
 *
 * Idea: a block may be as large as the bits are low in which the region's address and the memory's differ: at the first byte, and
 * wherever one run of memory ends and another begins (there the address itself must be aligned too). A block may be larger than the
 * region: what bounds accesses is the region's length, not the block.
 * Cost: one step for each run; no bigint in it.
 * Specified by: behaviour of Linux 7.2 ib_umem_find_best_pgsz; judged by test/golden (best-page-size).
 */

/** A run of addresses that the device sees. Bytes. */
export interface DmaRun {
  /** First byte, for the device. */
  readonly address: number;
  /** How many. */
  readonly length: number;
}

/** A region to choose for. */
export interface PageSizeQuestion {
  /** Runs in order: whole pages of 4 KiB each. */
  readonly runs: readonly DmaRun[];
  /** How far into the first run the region begins, bytes. */
  readonly firstOffset: number;
  /** Where the region begins, as its user counts. A bigint for those above 2^53. */
  readonly virt: number | bigint;
  /** Bytes. */
  readonly length: number;
  /** Sizes that the device has, or'ed together: powers of two from 4096 on. */
  readonly sizes: number;
}

const TWO_32 = 2 ** 32;
const ALL = 2n ** 64n;

/** The best size, bytes; 0: none fits. */
export function bestPageSize({ runs, firstOffset, virt, length, sizes }: PageSizeQuestion): number {
  const start = BigInt(virt);
  const last = start + BigInt(length) - 1n;
  if (start < 0n || last >= ALL || length <= 0) return 0;
  let high = Number(start >> 32n);
  let low = Number(start & 0xffff_ffffn);
  // Bits, high and low, in which an address and its memory differ somewhere.
  let differHigh = 0;
  let differLow = 0;
  let expected = -1;
  let offset = firstOffset;
  for (let i = 0; i < runs.length; i++) {
    const { address, length: bytes } = runs[i]!;
    if (address !== expected) {
      const memory = address + offset;
      differHigh |= Math.floor(memory / TWO_32) ^ high;
      differLow |= (memory % TWO_32) ^ low;
      if (i > 0) {
        differHigh |= high;
        differLow |= low;
      }
    }
    expected = address + bytes;
    const next = low + bytes - offset;
    high += Math.floor(next / TWO_32);
    low = next % TWO_32;
    offset = 0;
  }
  const usable = 2 ** trailingZeros(differHigh, differLow);
  // Sizes that are larger than they need be: one that holds all of the region serves as well as any.
  const enough = 2 ** bitsOf(start ^ last);
  return chosen(sizes, usable, enough);
}

/** Entries of a list of blocks of `pageSize` bytes over [virt, virt + length). */
export function pageListEntries(virt: number | bigint, length: number, pageSize: number): number {
  const inside = Number(BigInt(virt) % BigInt(pageSize));
  return Math.ceil((inside + length) / pageSize);
}

/** The largest of `sizes` up to `usable`; of those that are `enough` by themselves, the least. */
function chosen(sizes: number, usable: number, enough: number): number {
  let best = 0;
  for (let size = 1; size <= sizes; size *= 2) {
    if (Math.floor(sizes / size) % 2 === 0) continue;
    if (size > usable) break;
    best = size;
    if (size >= enough) break;
  }
  return best;
}

function trailingZeros(high: number, low: number): number {
  if (low !== 0) return 31 - Math.clz32(low & -low);
  return high === 0 ? 64 : 63 - Math.clz32(high & -high);
}

const bitsOf = (value: bigint): number => (value === 0n ? 0 : value.toString(2).length);
