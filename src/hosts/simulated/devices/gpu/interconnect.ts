/**
 * An interconnect: GPUs that reach each other's memory without the bus.
 *
 * Promises: a GPU that was unplugged from it is reached no more. Not for: its speed, or the routes within it.
 */
import { GPU_LINKS } from "../../../../layouts/gpu/index.ts";
import { linkTaken } from "./errors.ts";

/** Memory of a GPU on the interconnect, bytes. */
interface LinkedMemory {
  readonly bytes: Uint8Array;
}

/** Joins GPUs: each has a place on it, from 0 to 63. */
export class GpuInterconnect {
  readonly #places = new Map<number, LinkedMemory>();

  /** @throws DmaError ERR_DMA_SIM_GPU_LINK (EBUSY, EINVAL) */
  join(link: number, memory: LinkedMemory): void {
    if (!(Number.isInteger(link) && link >= 0 && link < GPU_LINKS) || this.#places.has(link)) throw linkTaken(link);
    this.#places.set(link, memory);
  }

  /** The GPU at this place is reached no more. */
  leave(link: number): void {
    this.#places.delete(link);
  }

  /** The memory at this place; undefined: nothing is there. */
  memoryAt(link: number): Uint8Array | undefined {
    return this.#places.get(link)?.bytes;
  }
}
