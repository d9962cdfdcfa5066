/**
 * Another owner's buffer (dma-buf) in an address space of a GPU: mapped when the GPU touches it, let go when it moves or is revoked.
 *
 * Idea: the owner maps its storage for the GPU's device, in any mix of RAM and peers' memory; here the addresses become entries of the GPU's own table.
 * What is about to change is taken from the GPU first, then unmapped; the next touch has it mapped anew, or is refused.
 * Promises: the GPU uses none of it when the owner's call comes back. Specified by: behaviour of Linux 7.2 dynamic dma-buf importers.
 */
import { PAGE_SIZE } from "../../base/index.ts";
import type { Dma } from "../../dma/index.ts";
import type { Attachment, DmaBuf } from "../dmabuf/index.ts";
import { badWindow, released } from "./errors.ts";
import { busPage, type GpuTable } from "./gpu-table.ts";

/** A shared buffer under an address of a GPU. Made by `GpuSpace.bindBuffer`. */
export class GpuBuffer implements Disposable {
  /** First page in the GPU's addresses. */
  readonly gpuPage: number;
  readonly pages: number;
  readonly #buffer: DmaBuf;
  readonly #attachment: Attachment;
  readonly #table: GpuTable;
  readonly #onRelease: (buffer: GpuBuffer) => void;
  #released = false;

  /** @throws DmaError ERR_DMA_GPU_RANGE (EINVAL), and as `DmaBuf.attach`; nothing is left then */
  constructor(
    base: { readonly dma: Dma; readonly table: GpuTable },
    buffer: DmaBuf,
    gpuAddress: number,
    onRelease: (buffer: GpuBuffer) => void,
  ) {
    if (!(gpuAddress >= 0 && gpuAddress % PAGE_SIZE === 0 && gpuAddress + buffer.lengthBytes <= 2 ** 47))
      throw badWindow("a buffer for the GPU at", gpuAddress);
    this.gpuPage = gpuAddress / PAGE_SIZE;
    this.pages = Math.ceil(buffer.lengthBytes / PAGE_SIZE);
    this.#buffer = buffer;
    this.#table = base.table;
    this.#onRelease = onRelease;
    this.#attachment = buffer.attach({
      name: base.dma.device.name,
      dma: base.dma,
      ops: {
        peerToPeer: true,
        invalidated: ({ why }) => {
          if (why !== "restore") this.#letGo();
        },
      },
    });
  }

  /** Does `gpuPage` belong to it? */
  holds(gpuPage: number): boolean {
    return gpuPage >= this.gpuPage && gpuPage < this.gpuPage + this.pages;
  }

  /** It is mapped for the GPU now. */
  get isMapped(): boolean {
    return this.#attachment.mapping !== undefined;
  }

  /** Maps it, and gives it to the GPU. @throws DmaError as `Attachment.map`: ERR_DMA_BUF_REVOKED (ENODEV), no way (EINVAL); ERR_DMA_RELEASED (EINVAL) */
  bring(): void {
    if (this.#released) throw released("buffer");
    this.#buffer.reservation.locked(() => {
      const mapping = this.#attachment.mapping ?? this.#attachment.map("bidirectional");
      const targets = new Float64Array(this.pages).fill(Number.NaN);
      let index = 0;
      for (const { address, length } of mapping.ranges)
        for (let at = 0; at < length; at += PAGE_SIZE) targets[index++] = busPage(address + at);
      try {
        this.#table.bind(this.gpuPage, targets, new Uint8Array(this.pages).fill(1));
      } catch (error) {
        this.#letGo();
        throw error;
      }
    });
  }

  /** The GPU loses it, and it is detached. A second time does nothing. */
  release(): void {
    if (this.#released) return;
    this.#released = true;
    this.#buffer.reservation.locked(() => this.#letGo());
    this.#attachment.detach();
    this.#onRelease(this);
  }

  /** As `release`, for `using`. */
  [Symbol.dispose](): void {
    this.release();
  }

  /** With the lock held: the GPU first, then the mapping. */
  #letGo(): void {
    if (!this.#attachment?.mapping) return;
    this.#table.zap(this.gpuPage, this.pages);
    this.#attachment.unmap();
  }
}
