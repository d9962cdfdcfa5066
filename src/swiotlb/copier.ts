/**
 * Copies between two places of memory through one buffer that is used again and again.
 *
 * Idea: memory is reached by address only, so a copy is a read and a write; views of the buffer, one for each length
 * that occurred, are kept, so that copying allocates nothing in the long run. Not for: places that overlap.
 */
import type { PhysAddr } from "../base/index.ts";
import type { PhysicalMemory } from "../platform/index.ts";

const PIECE = 4096;

export class Copier {
  readonly #memory: PhysicalMemory;
  readonly #buffer = new Uint8Array(PIECE);
  /** The first n bytes of the buffer, by n. */
  readonly #views: (Uint8Array | undefined)[] = new Array<Uint8Array | undefined>(PIECE + 1).fill(undefined);

  constructor(memory: PhysicalMemory) {
    this.#memory = memory;
  }

  copy(from: number, to: number, length: number): void {
    for (let at = 0; at < length; at += PIECE) {
      const size = Math.min(PIECE, length - at);
      let view = this.#views[size];
      if (view === undefined) {
        view = this.#buffer.subarray(0, size);
        this.#views[size] = view;
      }
      this.#memory.read((from + at) as PhysAddr, view);
      this.#memory.write((to + at) as PhysAddr, view);
    }
  }
}
