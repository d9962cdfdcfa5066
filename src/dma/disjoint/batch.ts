/**
 * A batch: start, add pieces until it is full, finalize, unmap.
 *
 * Idea: the caller does not know beforehand how much will come, only how much at most. Behind an IOMMU the batch reserves
 * that once and links what comes; without one it collects outputs.
 * Promises: one reservation, at most one sync and one invalidation, whatever is added; `full` changes nothing; any other
 * failure ends the batch and leaves nothing mapped; `abort` is legal in every state.
 * Asked for on the Linux mailing lists and never built there. What is left of the reservation stays with the batch: an
 * allocator that caches ranges by size gains nothing from a returned tail.
 */
import type { DmaAttributes } from "../../base/index.ts";
import { checkVec } from "../checks.ts";
import type { DmaDevice } from "../device.ts";
import type { DevicePath } from "../device-path.ts";
import { batchState } from "../errors.ts";
import type { Terms } from "../terms.ts";
import type { DmaVec, PhysVec } from "../vectors.ts";
import { DirectPieces, type Pieces, placePiece, TranslatedPieces } from "./map-vecs.ts";
import { piecesOf } from "./pieces.ts";
import { Segments } from "./segments.ts";

/** How much a batch takes at most; what goes past it is refused with `full`, and changes nothing. */
export interface BatchLimits {
  /** Bytes at most. */
  readonly maxBytes: number;
  /** Outputs at most; no limit unless said. */
  readonly maxVecs?: number;
  /** One output only: a piece that does not join the one before it makes the batch full. */
  readonly linear?: boolean;
}

/**
 * Memory that comes piece by piece, mapped together: {@link DmaBatch.add} until it is full, {@link DmaBatch.finalize},
 * {@link DmaBatch.unmap}. Costs one reservation, one sync and one invalidation, whatever is added.
 */
export class DmaBatch implements Disposable {
  readonly #device: DmaDevice;
  readonly #attributes: DmaAttributes | undefined;
  readonly #limits: BatchLimits;
  readonly #work: Pieces;
  readonly #translated: TranslatedPieces | undefined;
  readonly #segments: Segments;
  #bytes = 0;
  #state: "open" | "finalized" | "over" = "open";

  /** Made by {@link Dma.batch}. */
  constructor(devicePath: DevicePath, terms: Terms, limits: BatchLimits) {
    const { device, granules, path } = devicePath;
    this.#device = device;
    this.#attributes = terms.attributes;
    this.#limits = limits;
    this.#segments = new Segments(device);
    this.#translated = granules && new TranslatedPieces(devicePath, granules, terms);
    this.#translated?.reserveBytes(limits.maxBytes + granules!.granule);
    this.#work = this.#translated ?? new DirectPieces(path, terms);
  }

  /** Bytes added. */
  get bytes(): number {
    return this.#bytes;
  }

  /**
   * Adds a piece, or says that it does not fit any more: then nothing has changed.
   *
   * @throws DmaError as {@link Dma.mapVecs}; the batch is over then, and nothing is mapped. ERR_DMA_BATCH (EINVAL) if it is
   * not open
   */
  add(vec: PhysVec): "ok" | "full" {
    if (this.#state !== "open") throw batchState("add", this.#state);
    const { maxBytes, maxVecs, linear } = this.#limits;
    if (this.#bytes + vec.length > maxBytes) return "full";
    try {
      checkVec(vec);
      const pieces = piecesOf(this.#device, [vec], this.#attributes);
      let size = 0;
      for (const piece of pieces) if (piece.route.type !== "bus-address") size += this.#translated?.sizeOf(piece) ?? 0;
      if (this.#translated && size > this.#translated.left) return "full";
      if (maxVecs !== undefined && this.#segments.vecs.length + pieces.length > maxVecs) return "full";
      if (linear && this.#bytes > 0 && !this.#joins(vec)) return "full";
      for (const piece of pieces) placePiece(this.#work, this.#segments, piece);
    } catch (error) {
      this.#state = "over";
      this.#work.release(true);
      throw error;
    }
    this.#bytes += vec.length;
    return "ok";
  }

  /** No more pieces: one sync, and the outputs, which the device may use from here on. */
  finalize(): readonly DmaVec[] {
    if (this.#state !== "open") throw batchState("finalize", this.#state);
    this.#state = "finalized";
    this.#work.seal();
    return this.#segments.result;
  }

  /**
   * The CPU may read what the device wrote, until it gives the memory back. Does nothing before `finalize` and after
   * `unmap`.
   */
  syncForCpu(): void {
    if (this.#state === "finalized") this.#work.sync("cpu");
  }

  /** The device may use the memory again. Does nothing before `finalize` and after `unmap`. */
  syncForDevice(): void {
    if (this.#state === "finalized") this.#work.sync("device");
  }

  /** Ends the batch: one invalidation, or one entry of the flush queue. Cannot fail; a second time does nothing. */
  unmap(): void {
    this.abort();
  }

  /** The same in any state. */
  abort(): void {
    if (this.#state === "over") return;
    this.#state = "over";
    this.#work.release();
  }

  /** As `abort`, for `using`. */
  [Symbol.dispose](): void {
    this.abort();
  }

  /** Would `vec` go on where the last output ends? */
  #joins(vec: PhysVec): boolean {
    const last = this.#segments.vecs.at(-1);
    if (!last || this.#segments.vecs.length > 1) return false;
    const granule = this.#translated?.granule ?? 1;
    if (this.#translated) return (last.address + last.length) % granule === 0 && vec.phys % granule === 0;
    return last.address + last.length === vec.phys + this.#device.busOffset;
  }
}
