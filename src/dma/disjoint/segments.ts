/**
 * Output segments: appended piece by piece, joined where they touch, cut where the device's limits say.
 *
 * Promises: the segments in order are the pieces in order, byte for byte; none is longer than the device's longest, and
 * none crosses its boundary. Bus addresses join only bus addresses.
 */
import { DmaAddr } from "../../base/index.ts";
import type { DmaLimits } from "../device.ts";
import type { DmaVec } from "../vectors.ts";

export class Segments {
  readonly vecs: { address: DmaAddr; length: number; bus?: boolean }[] = [];
  readonly #limits: DmaLimits;

  constructor(limits: DmaLimits) {
    this.#limits = limits;
  }

  /** Segments there would be after {@link add}. */
  countWith(address: number, length: number, bus: boolean): number {
    const joined = this.#room(address, bus);
    let count = this.vecs.length;
    for (let at = Math.min(joined, length); at < length; at += this.#longest(address + at)) count++;
    return count;
  }

  add(address: number, length: number, bus = false): void {
    let at = Math.min(this.#room(address, bus), length);
    if (at > 0) this.vecs.at(-1)!.length += at;
    while (at < length) {
      const piece = Math.min(length - at, this.#longest(address + at));
      this.vecs.push({ address: DmaAddr(address + at), length: piece, ...(bus && { bus }) });
      at += piece;
    }
  }

  get result(): readonly DmaVec[] {
    return this.vecs;
  }

  /** Bytes at `address` that the last segment can take. */
  #room(address: number, bus: boolean): number {
    const last = this.vecs.at(-1);
    if (!last || last.address + last.length !== address || (last.bus ?? false) !== bus) return 0;
    return this.#longest(last.address) - last.length;
  }

  /** The longest segment that may start at `address`. */
  #longest(address: number): number {
    const boundary = this.#limits.segmentBoundaryMask + 1;
    return Math.min(this.#limits.maxSegmentSize, boundary - (address % boundary));
  }
}
