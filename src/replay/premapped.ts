/**
 * Memory that is mapped once and kept: what a driver does that registers its buffers beforehand.
 *
 * Idea: all pages that a load will ever touch, as few runs as they have, each one mapping for both directions. A request
 * is then only looked up. Promises: the device reaches the same bytes; and, which is the price, all of them all the time.
 */
import { type DmaAddr, PhysAddr } from "../base/index.ts";
import type { Dma, DmaVec, PhysVec } from "../dma/index.ts";
import type { TouchedPages } from "./touched-pages.ts";

/** Longer runs are mapped in pieces of this. */
const LARGEST_PIECE = 2 ** 28;

export class Premapped {
  /** First byte of each piece of memory, ascending, what it is long, and where the device finds it. */
  readonly #start: number[] = [];
  readonly #end: number[] = [];
  readonly #address: number[] = [];

  /** @throws DmaError as `dma.map` */
  constructor(dma: Dma, touched: TouchedPages) {
    for (const [start, end] of touched.runs())
      for (let at = start; at < end; at += LARGEST_PIECE) {
        const length = Math.min(LARGEST_PIECE, end - at);
        this.#start.push(at);
        this.#end.push(at + length);
        this.#address.push(dma.map(PhysAddr(at), length, "bidirectional").address);
      }
  }

  /** Mappings. */
  get count(): number {
    return this.#start.length;
  }

  /** Bytes that stay reachable. */
  get bytes(): number {
    return this.#start.reduce((sum, start, i) => sum + this.#end[i]! - start, 0);
  }

  /** Where the device finds `vecs`, which the loads had. */
  vecsOf(vecs: readonly PhysVec[]): DmaVec[] {
    const found: { address: DmaAddr; length: number }[] = [];
    for (const { phys, length } of vecs)
      for (let at: number = phys; at < phys + length; ) {
        const piece = this.#pieceOf(at);
        const part = Math.min(this.#end[piece]!, phys + length) - at;
        found.push({ address: (this.#address[piece]! + at - this.#start[piece]!) as DmaAddr, length: part });
        at += part;
      }
    return found;
  }

  #pieceOf(phys: number): number {
    let low = 0;
    for (let high = this.#start.length; high - low > 1; ) {
      const middle = (low + high) >> 1;
      if (this.#start[middle]! <= phys) low = middle;
      else high = middle;
    }
    return low;
  }
}
