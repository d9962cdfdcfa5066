/**
 * The physical-vector iterator: the memory of a request, bio by bio, in pieces as long as they get.
 *
 * Idea: vectors that are adjacent in memory become one, across bios too, up to the limits of a segment; a vector is cut where
 * those limits are reached. All or nothing: a vector that does not fit whole is not merged in part.
 * Promises: the pieces, one after the other, are exactly the bytes of the request, in order; no garbage.
 * Specified by: behaviour of Linux 7.2 block layer.
 */
import type { Bio } from "./bio.ts";
import { type QueueLimits, segmentRoom } from "./limits.ts";

export class PhysicalVectors {
  /** The piece that {@link next} found. */
  phys = 0;
  length = 0;
  #bio: Bio | undefined = undefined;
  #what: "data" | "integrity" = "data";
  #limits: QueueLimits | undefined = undefined;
  #index = 0;
  #offset = 0;
  #left = 0;

  /** Begins with the first of the bios chained to `bio`, their data or their metadata. */
  start(bio: Bio | undefined, limits: QueueLimits, what: "data" | "integrity" = "data"): void {
    this.#limits = limits;
    this.#what = what;
    this.#enter(bio);
  }

  /** Finds the next piece; false at the end. */
  next(): boolean {
    if (!this.#seek()) return false;
    const limits = this.#limits!;
    this.phys = this.#phys();
    const limit = segmentRoom(limits, this.phys);
    const first = this.#remainder();
    this.length = first < limit ? first : limit;
    this.#skip(this.length);
    if (this.length < first) return true;
    while (this.#seek()) {
      const length = this.#remainder();
      if (this.#phys() !== this.phys + this.length || this.length + length > limit) break;
      this.length += length;
      this.#skip(length);
    }
    return true;
  }

  #enter(bio: Bio | undefined): void {
    this.#bio = bio;
    if (!bio) return;
    const window = bio[this.#what];
    this.#index = window.index;
    this.#offset = window.offset;
    this.#left = window.bytes;
  }

  /** Goes on to the next bio while this one is used up. False at the end. */
  #seek(): boolean {
    while (this.#bio && this.#left === 0) this.#enter(this.#bio.next);
    return this.#bio !== undefined;
  }

  #phys(): number {
    return this.#bio![this.#what].vecs!.phys[this.#index]! + this.#offset;
  }

  #remainder(): number {
    const rest = this.#bio![this.#what].vecs!.length[this.#index]! - this.#offset;
    return rest < this.#left ? rest : this.#left;
  }

  #skip(bytes: number): void {
    this.#left -= bytes;
    this.#offset += bytes;
    if (this.#offset === this.#bio![this.#what].vecs!.length[this.#index]!) {
      this.#index++;
      this.#offset = 0;
    }
  }
}
