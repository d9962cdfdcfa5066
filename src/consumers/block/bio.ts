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
import { combineGaps, gapOf, junctionBits, junctionGap, NO_GAP } from "./gap.ts";
import { type QueueLimits, segmentRoom } from "./limits.ts";
import type { VectorList } from "./vectors.ts";

/** What is done with blocks. */
export type BlockOperation = "read" | "write" | "flush" | "write-zeroes" | "discard" | "compare";

/** Where a run of bytes begins in a list of vectors, and how many there are. */
export class VectorWindow {
  /** The list that it looks at; undefined while it covers nothing. */
  vecs: VectorList | undefined = undefined;
  /** Vector that its first byte is in. */
  index = 0;
  /** Byte of that vector where it begins. */
  offset = 0;
  /** Bytes from there on, over as many vectors as that takes. */
  bytes = 0;

  /** Physical address of its first byte, if it has one. */
  get phys(): number {
    return this.vecs!.phys[this.index]! + this.offset;
  }

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
    if (this.bytes === 0) return; // an empty window has no position
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

/** One piece of block I/O: an operation, a place on the disk, and memory in physical vectors. */
export class Bio {
  /** What is to be done. */
  operation: BlockOperation = "read";
  /** First logical block. */
  firstBlock = 0;
  /** The memory of its data. */
  readonly data: VectorWindow = new VectorWindow();
  /** The memory of its metadata; empty without. */
  readonly integrity: VectorWindow = new VectorWindow();
  /** Data vectors, counted by the limits of the queue. */
  segments = 0;
  /** Metadata vectors, counted as `segments` is. */
  integritySegments = 0;
  /** Junctions inside the data (gap.ts). */
  gap: number = NO_GAP;
  /** Junctions inside the metadata. */
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
    front.operation = this.operation;
    front.firstBlock = this.firstBlock;
    front.next = undefined;
    const fitting = front.#measure(data, limits, limits.maxBytes);
    const bytes = fitting - (fitting % limits.blockBytes);
    if (bytes === 0) throw unsplittable(fitting, limits.blockBytes, limits.maxSegments);
    if (bytes < fitting) front.#measure(data, limits, bytes);
    if (integrity.bytes > 0) integrity.cut((integrity.bytes / total) * bytes, front.integrity);
    else front.integrity.cover(undefined);
    data.cut(bytes, front.data);
    front.#measureIntegrity();
    this.firstBlock += bytes / limits.blockBytes;
    return bytes < total;
  }

  /**
   * How much of `window` fits into one request of at most `maxBytes`: within the limits, without a forbidden gap. Its vectors and
   * junctions become those of this bio.
   */
  #measure(window: VectorWindow, limits: QueueLimits, maxBytes: number): number {
    const { maxSegments, virtualBoundaryMask } = limits;
    const { phys: vecPhys, length: vecLength } = window.vecs!;
    const most = maxBytes < window.bytes ? maxBytes : window.bytes;
    let bytes = 0;
    let segments = 0;
    let bits = 0;
    let phys = 0;
    let length = 0;
    for (let i = window.index, offset = window.offset; bytes < most && segments < maxSegments; i++, offset = 0) {
      const next = vecPhys[i]! + offset;
      if (length !== 0) {
        if (virtualBoundaryMask !== 0 && hasGap(phys, length, next, virtualBoundaryMask)) break;
        bits |= junctionBits(phys, length, next);
      }
      phys = next;
      const room = vecLength[i]! - offset;
      length = room < most - bytes ? room : most - bytes;
      if (length <= segmentRoom(limits, phys)) {
        segments++;
        bytes += length;
        continue;
      }
      for (let left = length, at = phys; left > 0 && segments < maxSegments; segments++) {
        const piece = Math.min(segmentRoom(limits, at), left);
        bytes += piece;
        at += piece;
        left -= piece;
      }
    }
    this.segments = segments;
    this.gap = gapOf(bits);
    return bytes;
  }

  #measureIntegrity(): void {
    const { vecs, index, offset, bytes } = this.integrity;
    this.integritySegments = 0;
    this.integrityGap = NO_GAP;
    let phys = 0;
    let length = 0;
    for (let i = index, from = offset, left = bytes; left > 0; i++, from = 0) {
      const next = vecs!.phys[i]! + from;
      if (length > 0) this.integrityGap = combineGaps(this.integrityGap, junctionGap(phys, length, next));
      phys = next;
      length = Math.min(vecs!.length[i]! - from, left);
      left -= length;
      this.integritySegments++;
    }
  }
}

/** Is the junction forbidden by the boundary mask? */
export const hasGap = (phys: number, length: number, nextPhys: number, mask: number): boolean =>
  ((nextPhys | (phys + length)) & mask) !== 0;
