/**
 * A request: bios on adjacent blocks, sent to the device as one command.
 *
 * Idea: a chain of bios and four sums of them. It keeps no list of pages: whoever maps it walks the bios again.
 * Specified by: behaviour of Linux 7.2 block layer.
 */
import type { Direction } from "../../base/index.ts";
import { type Bio, type BlockOperation, hasGap, type VectorWindow } from "./bio.ts";
import { combineGaps, junctionGap, NO_GAP } from "./gap.ts";
import type { QueueLimits } from "./limits.ts";

/** Which way the data of an operation go. */
export const directionOfOperation = (operation: BlockOperation): Direction =>
  operation === "read" ? "from-device" : "to-device";

/** Bios that go to the disk as one command. */
export class BlockRequest {
  /** What is to be done. */
  operation: BlockOperation = "read";
  /** First logical block. */
  firstBlock = 0;
  /** Bytes of data, of all bios. */
  bytes = 0;
  /** Data vectors of all bios, counted by the limits of the queue. */
  segments = 0;
  /** Bytes of metadata. */
  integrityBytes = 0;
  /** Metadata vectors, counted in the same way. */
  integritySegments = 0;
  /** Junctions of the data, inside bios and between them (gap.ts). */
  gap: number = NO_GAP;
  /** Junctions of the metadata. */
  integrityGap: number = NO_GAP;
  /** The first bio; the others hang on its `next`. Undefined for a request without data. */
  first: Bio | undefined = undefined;
  #last: Bio | undefined = undefined;

  /** Becomes a request of `bio` alone, which came from {@link Bio.split}. */
  start(bio: Bio): void {
    this.operation = bio.operation;
    this.firstBlock = bio.firstBlock;
    this.bytes = bio.data.bytes;
    this.segments = bio.segments;
    this.integrityBytes = bio.integrity.bytes;
    this.integritySegments = bio.integritySegments;
    this.gap = bio.gap;
    this.integrityGap = bio.integrityGap;
    this.first = bio;
    this.#last = bio;
    bio.next = undefined;
  }

  /** A request without data. */
  clear(operation: BlockOperation): void {
    this.operation = operation;
    this.firstBlock = 0;
    this.bytes = 0;
    this.segments = 0;
    this.integrityBytes = 0;
    this.integritySegments = 0;
    this.gap = NO_GAP;
    this.integrityGap = NO_GAP;
    this.first = undefined;
    this.#last = undefined;
  }

  /** Appends `bio` if it continues this request and the sum is within the limits; false if it does not. */
  tryAppend(bio: Bio, limits: QueueLimits): boolean {
    const last = this.#last;
    if (!last || bio.operation !== this.operation || !last.mergeable || !bio.mergeable) return false;
    if (bio.firstBlock !== this.firstBlock + this.bytes / limits.blockBytes) return false;
    if (this.bytes + bio.data.bytes > limits.maxBytes || this.segments + bio.segments > limits.maxSegments)
      return false;
    if ((this.integrityBytes === 0) !== (bio.integrity.bytes === 0)) return false;
    if (this.integritySegments + bio.integritySegments > limits.maxIntegritySegments && this.integrityBytes > 0)
      return false;
    findEnd(last.data);
    const { phys, length } = END;
    const next = bio.data.phys;
    if (limits.virtualBoundaryMask !== 0 && hasGap(phys, length, next, limits.virtualBoundaryMask)) return false;
    this.gap = joined(this.gap, bio.gap, next);
    if (this.integrityBytes > 0) {
      findEnd(last.integrity);
      this.integrityGap = joined(this.integrityGap, bio.integrityGap, bio.integrity.phys);
    }
    this.bytes += bio.data.bytes;
    this.segments += bio.segments;
    this.integrityBytes += bio.integrity.bytes;
    this.integritySegments += bio.integritySegments;
    last.next = bio;
    bio.next = undefined;
    this.#last = bio;
    return true;
  }
}

/** The gaps of two parts, of which the first ends at {@link END} and the second begins at `next`. */
function joined(gap: number, nextGap: number, next: number): number {
  const both = combineGaps(gap, nextGap);
  // Adjacent in memory, the two meet in one vector: no junction.
  return END.phys + END.length === next ? both : combineGaps(both, junctionGap(END.phys, END.length, next));
}

/** Where a window ends: the start of its last vector (as far as the window has it), and that vector's length. */
function findEnd(window: VectorWindow): void {
  let left = window.bytes;
  let { index, offset } = window;
  for (let room = roomOf(window, index, offset); left > room; room = roomOf(window, index, offset)) {
    left -= room;
    index++;
    offset = 0;
  }
  END.phys = window.vecs!.phys[index]! + offset;
  END.length = left;
}

const roomOf = ({ vecs }: VectorWindow, index: number, offset: number): number => vecs!.length[index]! - offset;
/** What {@link findEnd} found. Used up before the next call. */
const END = { phys: 0, length: 0 };
