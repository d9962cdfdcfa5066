/**
 * A list of physical vectors: where the bytes of a bio lie.
 *
 * Idea: two typed arrays that grow and are used again, so that filling one costs no garbage. Vectors may be of any length and
 * start anywhere; each is physically contiguous. All of them belong to one provider: RAM, or one peer's memory.
 * Specified by: behaviour of Linux 7.2 block layer (multi-page vectors; pages of one provider per bio).
 */
import type { PhysVec } from "../../dma/index.ts";
import { badVector, mixedProviders } from "./errors.ts";

/** Who lends the memory: RAM, or a peer's memory by an identity of the caller's choice (compared with `===`). */
export type Provider = object | undefined;

/** Physical vectors as columns of numbers: no object for each. */
export class VectorList {
  /** Where each vector begins, bytes; the first `count` are in use. */
  phys: Float64Array = new Float64Array(16);
  /** Bytes of each vector; the first `count` are in use. */
  length: Float64Array = new Float64Array(16);
  /** Vectors in the list. */
  count = 0;
  /** The sum of their lengths. */
  bytes = 0;
  /** Whose memory all of them are; undefined for RAM. */
  provider: Provider = undefined;

  /** Empties the list and forgets its provider; its room stays for the next use. */
  clear(): void {
    this.count = 0;
    this.bytes = 0;
    this.provider = undefined;
  }

  /**
   * Appends `length` bytes at `phys`.
   *
   * @throws DmaError ERR_DMA_BLOCK_VECTOR (EINVAL) if that can be no memory; ERR_DMA_BLOCK_MIXED (EINVAL) if it belongs to
   * another provider than what is here already
   */
  add(phys: number, length: number, provider?: Provider): void {
    if (!(Number.isSafeInteger(phys) && phys >= 0 && Number.isSafeInteger(length) && length > 0))
      throw badVector(phys, length);
    if (this.count === 0) this.provider = provider;
    else if (provider !== this.provider) throw mixedProviders(phys);
    if (this.count === this.phys.length) this.#grow();
    this.phys[this.count] = phys;
    this.length[this.count++] = length;
    this.bytes += length;
  }

  /** Appends `vecs` in order. @throws DmaError as {@link VectorList.add}; those before the refused one stay. */
  addAll(vecs: readonly PhysVec[], provider?: Provider): void {
    for (let i = 0; i < vecs.length; i++) this.add(vecs[i]!.phys, vecs[i]!.length, provider);
  }

  #grow(): void {
    const { phys, length } = this;
    this.phys = new Float64Array(phys.length * 2);
    this.length = new Float64Array(phys.length * 2);
    this.phys.set(phys);
    this.length.set(length);
  }
}
