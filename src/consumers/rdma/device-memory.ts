/**
 * Memory of an RDMA adapter itself, given out to programs and exported as shared buffers (dma-buf).
 *
 * Idea: a program maps a piece of the adapter's BAR by a page offset; the same piece can be exported, as one vector with the BAR's provider.
 * Nothing is ever pinned or moved: who imports it must be able to lose it, when the program frees the piece or the driver goes.
 * Promises: when `freeSteps` or `removeSteps` has ended, no importer reaches the memory: all have been called, fences are done and mappings gone.
 * Specified by: behaviour of Linux 7.2 (uverbs_std_types_dmabuf, mmap_get_pfns): errno by errno.
 */
import { PAGE_SIZE, type PhysAddr } from "../../base/index.ts";
import type { P2pProvider } from "../../p2p/index.ts";
import type { Steps } from "../../platform/index.ts";
import { DmaBuf, type Exporter, importerRefused } from "../dmabuf/index.ts";
import { badArgument, callUnsupported, driverGone } from "./errors.ts";

/** The adapter whose memory it is. */
export interface RdmaDeviceMemoryOptions {
  /** For messages. */
  readonly name: string;
  /** Its BAR, if peers can reach it at all. */
  readonly provider?: P2pProvider;
}

interface Piece {
  readonly phys: PhysAddr;
  readonly length: number;
  readonly buffers: DmaBuf[];
}

/** Pieces of an adapter's memory by page offset, and the buffers that they were exported as. */
export class RdmaDeviceMemory {
  readonly #options: RdmaDeviceMemoryOptions;
  readonly #pieces = new Map<number, Piece>();
  #next = 1;
  #isRemoved = false;

  constructor(options: RdmaDeviceMemoryOptions) {
    this.#options = options;
  }

  /**
   * A piece that a program may map. Its page offset.
   *
   * @throws DmaError ERR_DMA_RDMA_ARGUMENT (EINVAL) unless it is whole pages
   */
  add(phys: PhysAddr, length: number): number {
    if (!(length > 0 && length % PAGE_SIZE === 0 && phys % PAGE_SIZE === 0))
      throw badArgument(`${length} bytes of device memory at 0x${phys.toString(16)}: whole pages are needed`);
    const pageOffset = this.#next;
    this.#next += length / PAGE_SIZE;
    this.#pieces.set(pageOffset, { phys, length, buffers: [] });
    return pageOffset;
  }

  /**
   * The piece at `pageOffset` as a buffer, held by the caller.
   *
   * @throws DmaError ERR_DMA_RDMA_GONE (EIO) once the driver is removed; ERR_DMA_RDMA_ARGUMENT (EINVAL) for an offset that nobody has, or a
   *   piece that is in no BAR; ERR_DMA_RDMA_UNSUPPORTED (EOPNOTSUPP) where peers cannot reach the adapter
   */
  export(pageOffset: number): DmaBuf {
    const { name, provider } = this.#options;
    if (this.#isRemoved) throw driverGone(name);
    const piece = this.#pieces.get(pageOffset);
    if (!piece) throw badArgument(`page offset ${pageOffset} is no piece of the memory of ${name}`);
    if (!provider) throw callUnsupported(`peers cannot reach the memory of ${name}`);
    const { phys, length } = provider.bar;
    if (piece.phys < phys || piece.phys + piece.length > phys + length)
      throw badArgument(`the piece at page offset ${pageOffset} is in no BAR of ${name}`);
    const buffer = new DmaBuf(this.#exporterOf(piece, provider));
    piece.buffers.push(buffer);
    return buffer;
  }

  /** The program gives the piece back: its buffers are revoked for good, and it is free when this has ended. */
  *freeSteps(pageOffset: number): Steps<void> {
    const piece = this.#pieces.get(pageOffset);
    if (!piece) return;
    this.#pieces.delete(pageOffset);
    for (const buffer of [...piece.buffers]) yield* buffer.revoke();
  }

  /** The driver goes, and everything with it. */
  *removeSteps(): Steps<void> {
    this.#isRemoved = true;
    for (const pageOffset of [...this.#pieces.keys()]) yield* this.freeSteps(pageOffset);
  }

  #exporterOf(piece: Piece, provider: P2pProvider): Exporter {
    const { name } = this.#options;
    const vecs = [{ phys: piece.phys, length: piece.length, provider }];
    const exporter: Exporter = {
      name: `memory of ${name}`,
      lengthBytes: piece.length,
      form: "vectors",
      teardown: "at-once",
      vectors: () => vecs,
      attach: ({ name: importer, ops }) => {
        if (!ops?.peerToPeer) throw importerRefused(name, importer, "it needs pages, and memory of devices has none");
      },
      pin: () => {
        throw callUnsupported(`memory of ${name} cannot be pinned: import it so that it may be taken back`);
      },
      release: () => {
        const at = piece.buffers.findIndex((buffer) => buffer.exporter === exporter);
        if (at >= 0) piece.buffers.splice(at, 1);
      },
    };
    return exporter;
  }
}
