/** A namespace of the simulated NVMe controller: blocks, their metadata, and where both are kept. */
import { type BlockStore, MemoryStore } from "../block-store.ts";

/** One namespace of a controller: blocks, their size, metadata, and where they are kept. */
export interface NamespaceOptions {
  /** A whole number from 1 on. */
  readonly blocks: number;
  /** 512 unless said; a power of two. */
  readonly blockBytes?: number;
  /** Bytes of metadata of each block, in a buffer of its own; 0 unless said. */
  readonly metadataBytes?: number;
  /** Memory unless said. */
  readonly store?: BlockStore;
}

export class Namespace {
  readonly id: number;
  readonly blocks: number;
  readonly blockBytes: number;
  readonly metadataBytes: number;
  readonly store: BlockStore;
  readonly metadata: BlockStore = new MemoryStore();

  constructor(id: number, options: NamespaceOptions) {
    this.id = id;
    this.blocks = options.blocks;
    this.blockBytes = options.blockBytes ?? 512;
    this.metadataBytes = options.metadataBytes ?? 0;
    this.store = options.store ?? new MemoryStore();
  }

  /** Are blocks [first, first + count) all here? */
  holds(first: number, count: number): boolean {
    return first + count <= this.blocks;
  }

  discard(first: number, count: number): void {
    this.store.discard(first * this.blockBytes, count * this.blockBytes);
    if (this.metadataBytes > 0) this.metadata.discard(first * this.metadataBytes, count * this.metadataBytes);
  }
}
