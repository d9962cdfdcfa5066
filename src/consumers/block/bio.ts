/**
 * A bio: one piece of block I/O, and a window on the vectors that hold its bytes.
 *
 * Idea: the vectors are shared, never copied. Splitting moves the start of one window and gives what was before it to another
 * bio; the two together are what the first was. Metadata has a window of its own that moves along.
 * Promises: all memory of a bio belongs to one provider, and one that holds a peer's memory is never merged, so that a whole
 * request may be classified by its first vector.
 * Specified by: behaviour of Linux 7.2 block layer.
 */
import { integrityLength, integritySegments, peerRefused, unalignedRequest, unsplittable } from "./errors.ts";
import { combineGaps, junctionGap, NO_GAP } from "./gap.ts";
import { type QueueLimits, segmentRoom } from "./limits.ts";
import type { VectorList } from "./vectors.ts";

export type BlockOperation = "read" | "write" | "flush" | "write-zeroes" | "discard" | "compare";

/** Where a run of bytes begins in a list of vectors, and how many there are. */
export class VectorWindow {
  vecs: VectorList | undefined = undefined;
  /** Vector, and byte in it. */
  index = 0;
  offset = 0;
  bytes = 0;

  /** All of `vecs`. */
  cover(vecs: VectorList | undefined): void {
    this.vecs = vecs;
    this.index = 0;
    this.offset = 0;
    this.bytes = vecs?.bytes ?? 0;
  }

  /** Gives the first `bytes` to `front`. */
  cut(bytes: number, front: VectorWindow): void {
    front.vecs = this.vecs;
    front.index = this.index;
    front.offset = this.offset;
    front.bytes = bytes;
    this.bytes -= bytes;
    let left = bytes;
    const { vecs } = this;
    while (vecs && left > 0) {
      const room = vecs.length[this.index]! - this.offset;
      if (left < room) {
        this.offset += left;
        return;
      }
      left -= room;
      this.index++;
      this.offset = 0;
    }
  }
}

export class Bio {
  operation: BlockOperation = "read";
  /** First logical block. */
  firstBlock = 0;
  readonly data: VectorWindow = new VectorWindow();
  readonly integrity: VectorWindow = new VectorWindow();
  /** Data vectors, counted by the limits of the queue. */
  segments = 0;
  integritySegments = 0;
  /** Junctions inside the data, and inside the metadata (gap.ts). */
  gap: number = NO_GAP;
  integrityGap: number = NO_GAP;
  /** The next bio of the same request. */
  next: Bio | undefined = undefined;

  /** Peer memory is never merged with anything. */
  get mergeable(): boolean {
    return this.data.vecs?.provider === undefined;
  }

  /**
   * Becomes `operation` on the blocks from `firstBlock` on, with all of `vecs` as its data.
   *
   * `integrityBytesPerBlock` is how much metadata each block has; `integrity` must hold exactly that much, if it is given.
   * @throws DmaError ERR_DMA_BLOCK_ALIGNMENT (EINVAL), ERR_DMA_BLOCK_PEER (EREMOTEIO), ERR_DMA_BLOCK_INTEGRITY (EINVAL)
   */
  set(
    operation: BlockOperation,
    firstBlock: number,
    vecs: VectorList,
    limits: QueueLimits,
    integrity?: VectorList,
    integrityBytesPerBlock = 0,
  ): void {
    const { blockBytes } = limits;
    if (vecs.bytes === 0 || vecs.bytes % blockBytes !== 0) throw unalignedRequest(vecs.bytes, blockBytes);
    if (vecs.provider !== undefined && !limits.peerMemory) throw peerRefused(vecs.phys[0]!);
    if (integrity) {
      const needed = (vecs.bytes / blockBytes) * integrityBytesPerBlock;
      if (integrity.bytes !== needed) throw integrityLength(integrity.bytes, needed);
      if (integrity.count > limits.maxIntegritySegments)
        throw integritySegments(integrity.count, limits.maxIntegritySegments);
      if (integrity.provider !== undefined && !limits.peerMemory) throw peerRefused(integrity.phys[0]!);
    }
    this.operation = operation;
    this.firstBlock = firstBlock;
    this.data.cover(vecs);
    this.integrity.cover(integrity);
    this.next = undefined;
  }

  /**
   * Moves as many blocks as one request may have from the start of this bio to `front`, which is ready to be sent then.
   * True if something is left.
   *
   * Cost: one look at each vector of `front`.
   * @throws DmaError ERR_DMA_BLOCK_SPLIT (EINVAL) if not even one block fits
   */
  split(limits: QueueLimits, front: Bio): boolean {
    const { data, integrity } = this;
    const total = data.bytes;
    const bytes = fitting(data, limits);
    if (bytes === 0) throw unsplittable(bytes, limits.blockBytes, limits.maxSegments);
    front.operation = this.operation;
    front.firstBlock = this.firstBlock;
    front.next = undefined;
    const metadata = integrity.vecs ? (integrity.bytes / total) * bytes : 0;
    data.cut(bytes, front.data);
    integrity.cut(metadata, front.integrity);
    this.firstBlock += bytes / limits.blockBytes;
    front.#measure(limits);
    return bytes < total;
  }

  /** Counts the vectors of both windows, and their junctions. */
  #measure(limits: QueueLimits): void {
    const { data, integrity } = this;
    this.segments = 0;
    for (let i = data.index, offset = data.offset, left = data.bytes; left > 0; i++, offset = 0) {
      const length = Math.min(data.vecs!.length[i]! - offset, left);
      this.segments += segmentsOf(limits, data.vecs!.phys[i]! + offset, length);
      left -= length;
    }
    this.integritySegments = 0;
    for (let i = integrity.index, offset = integrity.offset, left = integrity.bytes; left > 0; i++, offset = 0) {
      left -= integrity.vecs!.length[i]! - offset;
      this.integritySegments++;
    }
    this.gap = gapsIn(data);
    this.integrityGap = gapsIn(integrity);
  }
}

/** All junctions inside a window. */
function gapsIn({ vecs, index, offset, bytes }: VectorWindow): number {
  let gap = NO_GAP;
  let phys = 0;
  let length = 0;
  for (let i = index, from = offset, left = bytes; left > 0; i++, from = 0) {
    const next = vecs!.phys[i]! + from;
    if (length > 0) gap = combineGaps(gap, junctionGap(phys, length, next));
    phys = next;
    length = Math.min(vecs!.length[i]! - from, left);
    left -= length;
  }
  return gap;
}

/** Segments that one vector counts for. */
function segmentsOf(limits: QueueLimits, phys: number, length: number): number {
  let count = 0;
  for (let at = 0; at < length; count++) at += segmentRoom(limits, phys + at);
  return count;
}

/** The longest start of `window` that is one request: whole blocks within the limits, without a forbidden gap. */
function fitting(window: VectorWindow, limits: QueueLimits): number {
  const { maxBytes, maxSegments, virtualBoundaryMask, blockBytes } = limits;
  const vecs = window.vecs!;
  let bytes = 0;
  let segments = 0;
  let [lastPhys, lastLength] = [0, 0];
  scan: for (let i = window.index, offset = window.offset; bytes < window.bytes; i++, offset = 0) {
    let phys = vecs.phys[i]! + offset;
    let left = Math.min(vecs.length[i]! - offset, window.bytes - bytes);
    if (lastLength > 0 && virtualBoundaryMask !== 0 && hasGap(lastPhys, lastLength, phys, virtualBoundaryMask)) break;
    lastPhys = phys;
    lastLength = left;
    while (left > 0) {
      if (segments === maxSegments || bytes >= maxBytes) break scan;
      const room = Math.min(segmentRoom(limits, phys), left, maxBytes - bytes);
      segments++;
      bytes += room;
      phys += room;
      left -= room;
    }
  }
  return bytes - (bytes % blockBytes);
}

/** Is the junction forbidden by the boundary mask? */
export const hasGap = (phys: number, length: number, nextPhys: number, mask: number): boolean =>
  (((nextPhys % (mask + 1)) | ((phys + length) % (mask + 1))) & mask) !== 0;
