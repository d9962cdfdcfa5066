/**
 * Page lists: how a device finds the memory of a region.
 *
 * Idea: a region is a list of blocks of one size. An entry of the *translation table* (MTT) is the address of a block with what may be
 * done to it, 8 bytes, big endian; zero is a block that is not there. An entry of a *list of keys* (KLM) points to a part of another
 * region, 16 bytes.
 * Not for: which block size (consumers/rdma/page-size.ts).
 * Specified by: the translation entries of ConnectX devices, public in Linux 7.2 include/linux/mlx5 and drivers (facts only).
 */

/** Bytes of an entry of a translation table. */
export const MTT_BYTES = 8;
/** Bytes of an entry of a list of keys. */
export const KLM_BYTES = 16;

/** What the device may do to a block: the low bits of its entry. */
export const MTT = {
  /** The device may read the block. */
  read: 1,
  /** The device may write the block. */
  write: 2,
} as const;

/** Blocks are aligned to 4 KiB at least, so that these bits are free. */
const FLAGS = 4096;

/**
 * Writes one entry. An address of zero with flags is a block at zero; 0 flags write zero, whatever the address.
 *
 * @param address below 2^53, a multiple of 4096
 */
export function writeMtt(into: DataView, index: number, address: number, flags: number): void {
  const word = flags === 0 ? 0 : address + flags;
  into.setUint32(index * MTT_BYTES, Math.floor(word / 2 ** 32));
  into.setUint32(index * MTT_BYTES + 4, word % 2 ** 32);
}

/** What one entry says; flags 0: there is no block. */
export function readMtt(from: DataView, index: number): { readonly address: number; readonly flags: number } {
  const word = from.getUint32(index * MTT_BYTES) * 2 ** 32 + from.getUint32(index * MTT_BYTES + 4);
  const flags = word % FLAGS;
  return { address: word - flags, flags };
}

/** A part of another region. */
export interface Klm {
  /** Bytes; 0: of the size that the list has for all. */
  readonly length: number;
  readonly key: number;
  /** Where it begins, as that region counts. */
  readonly address: bigint;
}

/** Writes one entry of a list of keys. */
export function writeKlm(into: DataView, index: number, { length, key, address }: Klm): void {
  into.setUint32(index * KLM_BYTES, length);
  into.setUint32(index * KLM_BYTES + 4, key);
  into.setBigUint64(index * KLM_BYTES + 8, address);
}

/** What one entry of a list of keys says. Key 0: there is no such region yet. */
export function readKlm(from: DataView, index: number): Klm {
  return {
    length: from.getUint32(index * KLM_BYTES),
    key: from.getUint32(index * KLM_BYTES + 4),
    address: from.getBigUint64(index * KLM_BYTES + 8),
  };
}

/** Names of keys: the index of the region, and a variant that makes old keys miss. */
export const KEY = {
  /** Variants of one index. */
  variants: 256,
  /** The key of an index and a variant (its low 8 bits). */
  of: (index: number, variant: number): number => (index * 256 + (variant & 0xff)) >>> 0,
  /** The upper 24 bits: which region. */
  index: (key: number): number => Math.floor(key / 256),
  /** The low 8 bits, by which an old key of the same index is told from the new one. */
  variant: (key: number): number => key & 0xff,
} as const;
