/**
 * Storage of a shared buffer: physical vectors, each of one kind of memory.
 *
 * Idea: what a buffer lies in is a list of vectors; a vector is RAM, or belongs to one provider of peer memory. Nothing is kept per
 * page, and nothing here says how a device reaches it. Promises: lists are checked once, when they are made.
 * Not for: addresses of devices (map-storage.ts, in-place-mapping.ts).
 */
import { PAGE_SIZE, PhysAddr } from "../../base/index.ts";
import type { P2pProvider } from "../../p2p/index.ts";
import { badArgument, badVectors } from "./errors.ts";

/** Neighbouring pages of the storage, all of one kind: 16 bytes where a scatter table takes 32 and a page structure besides. */
export interface StorageVec {
  /** First byte, of a whole page. */
  readonly phys: PhysAddr;
  /** Bytes, whole pages. */
  readonly length: number;
  /** Whose memory it is; absent: RAM. */
  readonly provider?: P2pProvider | undefined;
}

/** Bytes that addresses can say. */
const LONGEST = 2 ** 53;

/** Bytes of all vectors together. */
export function lengthOf(vecs: readonly StorageVec[]): number {
  let total = 0;
  for (const { length } of vecs) total += length;
  return total;
}

/**
 * Whole pages, at least one vector, and a sum that can be said. The same memory twice is allowed.
 *
 * @throws DmaError ERR_DMA_BUF_VECTORS (EINVAL)
 */
export function checkVectors(vecs: readonly StorageVec[]): number {
  if (vecs.length === 0) throw badVectors("there is none");
  let total = 0;
  for (const { phys, length } of vecs) {
    if (!(Number.isSafeInteger(phys) && phys >= 0 && phys % PAGE_SIZE === 0))
      throw badVectors(`one begins at ${phys}, which is no page`, { phys });
    if (!(length > 0 && length % PAGE_SIZE === 0))
      throw badVectors(`one has ${length} bytes, which is not whole pages`, { length });
    total += length;
  }
  if (total > LONGEST) throw badVectors(`together they have ${total} bytes`, { total });
  return total;
}

/**
 * The part [offset, + length) of the storage.
 *
 * @throws DmaError ERR_DMA_BUF_ARGUMENT (EINVAL) if it is not inside, or not whole pages
 */
export function sliceOf(vecs: readonly StorageVec[], offset: number, length: number): StorageVec[] {
  const total = lengthOf(vecs);
  if (!(offset >= 0 && offset % PAGE_SIZE === 0 && offset < total))
    throw badArgument("an offset", offset, `whole pages below ${total} are needed`);
  if (!(length > 0 && length % PAGE_SIZE === 0 && offset + length <= total))
    throw badArgument("a length", length, `whole pages, at most ${total - offset}, are needed`);
  const slice: StorageVec[] = [];
  let skip = offset;
  let left = length;
  for (const vec of vecs) {
    if (left === 0) break;
    if (skip >= vec.length) {
      skip -= vec.length;
      continue;
    }
    const piece = Math.min(vec.length - skip, left);
    slice.push({ ...vec, phys: PhysAddr(vec.phys + skip), length: piece });
    skip = 0;
    left -= piece;
  }
  return slice;
}
