/**
 * Descriptor pools: memory for PRP lists and SGL segments, which the controller reads.
 *
 * Idea: two sizes. Most requests need at most 32 PRPs or 16 SGL descriptors: 256 bytes, of which a page holds sixteen. The
 * others take a page. Pages are mapped once and stay; blocks go round, last given first taken, so that a request in steady
 * state makes no garbage.
 * Promises: a block is aligned to its size. `take` answers `undefined` when there is no memory, never throws.
 */
import { type DmaAddr, DmaError } from "../../base/index.ts";
import { CONTROLLER_PAGE, viewOf } from "../../layouts/nvme/index.ts";
import { FreeStack } from "./free-stack.ts";

/** Memory that CPU and device share for long: what `allocCoherent` gives. */
export interface SharedMemory {
  /** Where the device finds it. */
  readonly address: DmaAddr;
  /** The bytes themselves: a view, not a copy. */
  readonly bytes: Uint8Array;
  /** Gives the memory back; neither side may touch it after that. */
  free(): void;
}

/** Memory for a list of descriptors. */
export interface DescriptorBlock {
  /** Where the controller reads it. */
  readonly address: number;
  /** Where the driver writes it. */
  readonly view: DataView;
}

/** Bytes of a block for short lists. */
export const SMALL_BLOCK = 256;
/** Bytes of a block for long lists. */
export const LARGE_BLOCK: number = CONTROLLER_PAGE;

/** Blocks of one size for descriptors, mapped once and used again. */
export class DescriptorPool {
  /** Bytes of a block. */
  readonly blockBytes: number;
  /** Blocks taken and not given back. */
  inUse = 0;
  /** Most blocks in use at once. */
  peak = 0;
  readonly #allocate: (length: number) => SharedMemory;
  readonly #limit: number;
  readonly #pages: SharedMemory[] = [];
  readonly #free = new FreeStack<DescriptorBlock>();

  /**
   * Empty: pages are taken when blocks are asked for.
   * @param limit most blocks there may be
   */
  constructor(blockBytes: number, allocate: (length: number) => SharedMemory, limit: number = Number.MAX_SAFE_INTEGER) {
    this.blockBytes = blockBytes;
    this.#allocate = allocate;
    this.#limit = limit;
  }

  /** A block with whatever its last user left in it; undefined at the limit, or when no memory can be had. */
  take(): DescriptorBlock | undefined {
    if (this.inUse >= this.#limit) return undefined;
    if (this.#free.count === 0 && !this.#grow()) return undefined;
    this.inUse++;
    if (this.inUse > this.peak) this.peak = this.inUse;
    return this.#free.take();
  }

  /** Gives back a block of this pool, once; it is the next one taken. */
  give(block: DescriptorBlock): void {
    this.inUse--;
    this.#free.give(block);
  }

  /** Gives all memory back. Every block must have been given back. */
  destroy(): void {
    for (const page of this.#pages) page.free();
    this.#pages.length = 0;
    this.#free.clear();
  }

  #grow(): boolean {
    try {
      const page = this.#allocate(CONTROLLER_PAGE);
      this.#pages.push(page);
      const { bytes } = page;
      for (let at = CONTROLLER_PAGE - this.blockBytes; at >= 0; at -= this.blockBytes)
        this.#free.give({ address: page.address + at, view: viewOf(bytes.subarray(at, at + this.blockBytes)) });
      return true;
    } catch (error) {
      if (error instanceof DmaError) return false;
      throw error;
    }
  }
}

/** Both sizes. */
export class DescriptorPools {
  /** Blocks of 256 bytes. */
  readonly small: DescriptorPool;
  /** Blocks of a page. */
  readonly large: DescriptorPool;

  /** Takes both over: {@link destroy} ends them. */
  constructor(small: DescriptorPool, large: DescriptorPool) {
    this.small = small;
    this.large = large;
  }

  /** A block of at least `bytes`, at most a page. */
  take(bytes: number): DescriptorBlock | undefined {
    return (bytes <= SMALL_BLOCK ? this.small : this.large).take();
  }

  /** Gives a block back to the pool of its size, once. */
  give(block: DescriptorBlock): void {
    (block.view.byteLength === SMALL_BLOCK ? this.small : this.large).give(block);
  }

  /** Blocks of both sizes taken and not given back. */
  get inUse(): number {
    return this.small.inUse + this.large.inUse;
  }

  /** Gives all memory of both sizes back. Every block must have been given back. */
  destroy(): void {
    this.small.destroy();
    this.large.destroy();
  }
}
