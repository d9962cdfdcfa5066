/** Regions of pinned memory: the list is written once, and stays. */
import { PAGE_SIZE } from "../../base/index.ts";
import type { Dma } from "../../dma/index.ts";
import { ACCESS, isWritableAccess, MTT } from "../../layouts/rdma/index.ts";
import type { RegionBacking, RegionList } from "./backing.ts";
import { noPageSize } from "./errors.ts";
import { eachBlock, PageList } from "./page-list.ts";
import { bestPageSize, pageListEntries } from "./page-size.ts";
import { PinnedMemory, type PinnedMemoryOptions } from "./pinned-memory.ts";

/** Pinned memory, as a region is made of it. */
interface PinnedBackingOptions extends PinnedMemoryOptions {
  readonly virt: number;
  /** Sizes of blocks that the device has, or'ed. */
  readonly blockSizes: number;
}

/** What the device may do to blocks of a region that was registered so. */
export const blockFlags = (access: number): number => MTT.read | (isWritableAccess(access) ? MTT.write : 0);

/** Pinned memory with its page list. */
export class PinnedBacking implements RegionBacking {
  readonly kind = "pinned";
  readonly memory: PinnedMemory;
  readonly #pages: PageList | undefined;
  readonly #blockBytes: number;

  /** @throws DmaError as {@link PinnedMemory}; ERR_DMA_RDMA_PAGE_SIZE (EINVAL); as `PageList`; nothing is left then */
  constructor(options: PinnedBackingOptions) {
    const { virt, blockSizes, length, dma } = options;
    this.memory = new PinnedMemory(options);
    try {
      this.#blockBytes = dma ? this.#bestSize(virt, blockSizes) : PAGE_SIZE;
      if (dma) this.#pages = this.#listOf(dma, virt, length);
    } catch (error) {
      this.memory.release();
      throw error;
    }
  }

  get writable(): boolean {
    return this.memory.writable;
  }

  get list(): RegionList | undefined {
    if (!this.#pages) return undefined;
    const { address, entries } = this.#pages;
    return { list: address, entries, blockBytes: this.#blockBytes, listOf: "blocks", onDemand: false };
  }

  get listBytes(): number {
    return this.#pages?.lengthBytes ?? 0;
  }

  release(): void {
    this.#pages?.free();
    this.memory.release();
  }

  #bestSize(virt: number, sizes: number): number {
    const { segments: runs, firstOffset, length } = this.memory;
    const best = bestPageSize({ runs, firstOffset, virt, length, sizes });
    if (best === 0) throw noPageSize(virt, length);
    return best;
  }

  #listOf(dma: Dma, virt: number, length: number): PageList {
    const { segments: runs, firstOffset, writable } = this.memory;
    const blockBytes = this.#blockBytes;
    const pages = new PageList(dma, pageListEntries(virt, length, blockBytes));
    const flags = blockFlags(writable ? ACCESS.localWrite : 0);
    eachBlock({ runs, firstOffset, virt, length, blockBytes }, (index, address) => pages.set(index, address, flags));
    return pages;
  }
}
