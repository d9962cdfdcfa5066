/** What the calls on a range announce to the observer of its device: the two-step calls, for which the kernel has no event. */

import { attributeBits } from "../../base/index.ts";
import type { DmaDevice } from "../device.ts";
import type { Terms } from "../terms.ts";
import type { Direction } from "../vectors.ts";

/** Where the range lies, as it is now. */
interface Place {
  readonly address: number;
  readonly length: number;
}

export class RangeEvents {
  readonly #device: DmaDevice;
  readonly #range: Place;
  /** Of the last link: what the events of the end say. */
  #direction: Direction = "bidirectional";
  /** Where the last byte ends that a link was announced for. */
  #end = 0;

  constructor(device: DmaDevice, range: Place) {
    this.#device = device;
    this.#range = range;
  }

  /** The object of the range serves for another one. */
  reset(): void {
    this.#direction = "bidirectional";
    this.#end = 0;
  }

  linking(offset: number, length: number, phys: number, { direction, attributes }: Terms): void {
    this.#direction = direction;
    this.#end = Math.max(this.#end, offset + length);
    this.#announce("dma_iova_link", { offset, length, direction, phys, attributes: attributeBits(attributes) });
  }

  /** The link that was announced did not come about. */
  linkFailed(offset: number, length: number, phys: number): void {
    this.#announce("dma_iova_link", { offset, length, phys, ok: false });
  }

  syncing(offset: number, length: number): void {
    this.#announce("dma_iova_sync", { offset, length, direction: this.#direction });
  }

  unlinking(offset: number, length: number): void {
    this.#announce("dma_iova_unlink", { offset, length, direction: this.#direction });
  }

  /** The end of the range, in which the last linked byte lies before `end`. */
  ending(isEmpty: boolean, end: number): void {
    const length = Math.min(end, this.#end);
    this.#announce(isEmpty ? "dma_iova_free" : "dma_iova_destroy", { offset: 0, length, direction: this.#direction });
  }

  #announce(
    name: "dma_iova_link" | "dma_iova_sync" | "dma_iova_unlink" | "dma_iova_free" | "dma_iova_destroy",
    fields: {
      offset: number;
      length: number;
      phys?: number;
      direction?: Direction;
      attributes?: number;
      ok?: boolean;
    },
  ): void {
    const { address, length } = this.#range;
    this.#device.announceTwoStep({ name, device: this.#device.name, address, reserved: length, ...fields });
  }
}
