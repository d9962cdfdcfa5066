/**
 * Regions over buffers of other drivers: the list is written when the buffer is mapped, and zeroed when it moves.
 *
 * Promises: a buffer that comes back elsewhere may be cut into other blocks: the adapter is told of the new size while no entry is
 * there, so that it never reads an entry by the wrong size. A revoked region keeps its key, which names nothing usable, until it is
 * deregistered.
 */
import { PAGE_SIZE } from "../../base/index.ts";
import type { Dma } from "../../dma/index.ts";
import { isWritableAccess } from "../../layouts/rdma/index.ts";
import type { Steps } from "../../platform/index.ts";
import type { RegionBacking, RegionList } from "./backing.ts";
import { type BufferLife, BufferMemory } from "./buffer-memory.ts";
import { noPageSize } from "./errors.ts";
import { eachBlock, PageList } from "./page-list.ts";
import { bestPageSize, pageListEntries } from "./page-size.ts";
import { blockFlags } from "./pinned-backing.ts";
import type { SharedBuffer } from "./shared-buffer.ts";

/** A buffer, as a region is made of it. */
export interface BufferBackingOptions {
  /** Which buffer. */
  readonly buffer: SharedBuffer;
  /** How long its mapping lives. */
  readonly life: BufferLife;
  /** First byte of the buffer. */
  readonly offset: number;
  /** How many bytes. */
  readonly length: number;
  /** Where the region begins, as its users count. */
  readonly virt: number;
  /** {@link ACCESS} bits. */
  readonly access: number;
  /** By which it is mapped. */
  readonly dma: Dma;
  /** Sizes of blocks that the adapter has, or'ed. */
  readonly blockSizes: number;
  /** The device forgets entries [first, end), and uses them no more. */
  readonly forget: (first: number, end: number) => void;
  /** Blocks have another size: the adapter is told before any entry is written. */
  readonly resized: () => void;
  /** It is gone for good. */
  readonly revoked: () => void;
}

/** A part of a buffer with its page list. */
export class BufferBacking implements RegionBacking {
  readonly kind = "buffer";
  readonly writable: boolean;
  readonly #options: BufferBackingOptions;
  readonly #pages: PageList;
  readonly #memory: BufferMemory;
  #blockBytes = PAGE_SIZE;
  #entries: number;
  #filled = false;

  /** @throws DmaError as {@link BufferMemory}; ERR_DMA_RDMA_PAGE_SIZE (EINVAL); as `PageList`; nothing is left then */
  constructor(options: BufferBackingOptions) {
    const { buffer, life, offset, length, virt, access, dma } = options;
    this.#options = options;
    this.writable = isWritableAccess(access);
    this.#memory = new BufferMemory({ buffer, life, offset, length, dma, forget: (why) => this.#forget(why) });
    let pages: PageList | undefined;
    try {
      if (offset % PAGE_SIZE !== virt % PAGE_SIZE) throw noPageSize(virt, length);
      // As many entries as the smallest blocks need: a buffer that moves may need them.
      this.#entries = pageListEntries(virt, length, PAGE_SIZE);
      pages = new PageList(dma, this.#entries);
      this.#pages = pages;
      if (life !== "dynamic") this.#fill();
    } catch (error) {
      this.#memory.release();
      pages?.free();
      throw error;
    }
  }

  get list(): RegionList {
    return {
      list: this.#pages.address,
      entries: this.#entries,
      blockBytes: this.#blockBytes,
      listOf: "blocks",
      onDemand: this.#options.life === "dynamic",
    };
  }

  get listBytes(): number {
    return this.#pages.lengthBytes;
  }

  /** Its owner has taken the buffer back. */
  get isRevoked(): boolean {
    return this.#memory.isRevoked;
  }

  // biome-ignore lint/correctness/useYield: it never has to stop: the buffer's lock is held for all of it
  *bringSteps(): Steps<void> {
    if (this.#options.life !== "dynamic" || this.#filled) return;
    this.#fill();
  }

  /** Takes the buffer from the device for good. */
  revoke(): void {
    this.#memory.revoke();
  }

  release(): void {
    this.#memory.release();
    this.#pages.free();
  }

  #fill(): void {
    const { virt, length, blockSizes, access, resized } = this.#options;
    const runs = this.#memory.map();
    const { firstOffset } = this.#memory;
    const blockBytes = bestPageSize({ runs, firstOffset, virt, length, sizes: blockSizes });
    if (blockBytes === 0) throw noPageSize(virt, length);
    if (blockBytes !== this.#blockBytes) {
      this.#blockBytes = blockBytes;
      this.#entries = pageListEntries(virt, length, blockBytes);
      resized();
    }
    const flags = blockFlags(access);
    eachBlock({ runs, firstOffset, virt, length, blockBytes }, (index, address) =>
      this.#pages.set(index, address, flags),
    );
    this.#filled = true;
  }

  #forget(why: "moved" | "revoked"): void {
    if (this.#filled) {
      this.#filled = false;
      this.#pages.clear(0, this.#entries);
      this.#options.forget(0, this.#entries);
    }
    if (why === "revoked") this.#options.revoked();
  }
}
