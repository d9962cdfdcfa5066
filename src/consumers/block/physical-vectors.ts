/**
 * The physical-vector iterator: the memory of a request, bio by bio, in pieces as long as they get.
 *
 * Idea: vectors that are adjacent in memory become one, across bios too, up to the limits of a segment; a vector is cut where
 * those limits are reached. All or nothing: a vector that does not fit whole is not merged in part.
 * Promises: the pieces, one after the other, are exactly the bytes of the request, in order; no garbage.
 * Specified by: behaviour of Linux 7.2 block layer.
 */
import type { Bio, VectorWindow } from "./bio.ts";
import { type QueueLimits, segmentRoom, UNLIMITED_BOUNDARY } from "./limits.ts";

/** The memory of a request, vector by vector, cut by the limits of its queue. */
export class PhysicalVectors {
  /** Where the piece that {@link next} found begins, bytes. */
  phys = 0;
  /** Bytes of that piece. */
  length = 0;
  #bio: Bio | undefined = undefined;
  #isData = true;
  #limits: QueueLimits | undefined = undefined;
  /** Segments have no boundary, and so much room wherever they begin; 0: it depends. */
  #room = 0;
  // The vectors of the bio it is in, and where in them: #left bytes from byte #offset of vector #index on.
  #vecPhys: Float64Array = NOTHING;
  #vecLength: Float64Array = NOTHING;
  #index = 0;
  #offset = 0;
  #left = 0;

  /** Begins with the first of the bios chained to `bio`, their data or their metadata. */
  start(bio: Bio | undefined, limits: QueueLimits, what: "data" | "integrity" = "data"): void {
    this.#limits = limits;
    this.#room = limits.segmentBoundaryMask === UNLIMITED_BOUNDARY ? limits.maxSegmentBytes : 0;
    this.#isData = what === "data";
    this.#enter(bio);
  }

  /** Finds the next piece; false at the end. */
  next(): boolean {
    if (this.#left === 0 && !this.#seek()) return false;
    let index = this.#index;
    const phys = this.#vecPhys[index]! + this.#offset;
    const limit = this.#room !== 0 ? this.#room : segmentRoom(this.#limits!, phys);
    let left = this.#left;
    let length = this.#vecLength[index]! - this.#offset;
    if (length > left) length = left;
    this.phys = phys;
    if (length > limit) {
      this.#offset += limit;
      this.#left = left - limit;
      this.length = limit;
      return true;
    }
    left -= length;
    index++;
    // Neighbours in the same bio, whole; the last one may be cut short by the end of the bio.
    while (left > 0 && this.#vecPhys[index]! === phys + length) {
      const whole = this.#vecLength[index]!;
      const more = whole < left ? whole : left;
      if (length + more > limit) break;
      length += more;
      left -= more;
      index++;
    }
    this.#index = index;
    this.#offset = 0;
    this.#left = left;
    this.length = left === 0 && this.#bio!.next !== undefined ? this.#joinBios(phys, length, limit) : length;
    return true;
  }

  /** A bio is used up and others follow: their vectors may go on where this one ended. */
  #joinBios(phys: number, length: number, limit: number): number {
    while (this.#left !== 0 || this.#seek()) {
      if (this.#vecPhys[this.#index]! + this.#offset !== phys + length) break;
      const rest = this.#vecLength[this.#index]! - this.#offset;
      const more = rest < this.#left ? rest : this.#left;
      if (length + more > limit) break;
      length += more;
      this.#left -= more;
      this.#index++;
      this.#offset = 0;
    }
    return length;
  }

  #enter(bio: Bio | undefined): void {
    this.#bio = bio;
    this.#left = 0;
    if (bio === undefined) return;
    const window: VectorWindow = this.#isData ? bio.data : bio.integrity;
    this.#vecPhys = window.vecs?.phys ?? NOTHING;
    this.#vecLength = window.vecs?.length ?? NOTHING;
    this.#index = window.index;
    this.#offset = window.offset;
    this.#left = window.bytes;
  }

  /** Goes on to the next bio while this one is used up. False at the end. */
  #seek(): boolean {
    while (this.#bio !== undefined && this.#left === 0) this.#enter(this.#bio.next);
    return this.#left !== 0;
  }
}

const NOTHING = new Float64Array(0);
