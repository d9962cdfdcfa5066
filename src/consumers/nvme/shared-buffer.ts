/**
 * A shared buffer (dma-buf) as memory of a disk's transfers: from the disk straight into what a GPU, an adapter or a program has, and back.
 *
 * Idea: the block layer maps every request itself, so what it needs of a buffer is where it is, not addresses: the importer takes physical vectors, and
 * each command maps its part of them in two steps, RAM and peers' memory each by its own way. What is under way is a fence of the buffer, so
 * a move or a revocation waits for it; between two transfers nothing is mapped for the disk.
 * Promises: a transfer waits for those of others that it must come after; it begins on storage that is the buffer's, or not at all. When the
 * buffer is taken back, what is under way ends first and nothing begins any more.
 * Not for: mapping once for many transfers (a list of addresses would save the mapping of each command, and cost the way for mixed memory).
 */
import { Dma, type PhysVec } from "../../dma/index.ts";
import { type Attachment, type DmaBuf, Fence, type PhysList, type StorageVec, sliceOf } from "../dmabuf/index.ts";
import { bufferChanged, noVectors } from "./errors.ts";
import type { NvmeNamespace } from "./namespace.ts";

/** Which part of a buffer is transferred. Bytes; whole blocks of the disk. */
export interface BufferPart {
  /** 0 unless said. */
  readonly offset?: number;
  /** To the end of the buffer unless said. */
  readonly length?: number;
}

/** One buffer, for transfers of one disk. {@link NvmeBuffer.detach} lets it go. */
export class NvmeBuffer implements Disposable {
  readonly #namespace: NvmeNamespace;
  readonly #buffer: DmaBuf;
  readonly #attachment: Attachment;

  /** @throws DmaError as {@link DmaBuf.attach}: ENODEV while it is revoked, EOPNOTSUPP where its owner does not say where it is */
  constructor(namespace: NvmeNamespace, buffer: DmaBuf) {
    if (buffer.exporter.form !== "vectors") throw noVectors(buffer.name);
    this.#namespace = namespace;
    this.#buffer = buffer;
    this.#attachment = buffer.attach({
      name: `nvme namespace ${namespace.id}`,
      dma: new Dma({ name: `nvme namespace ${namespace.id}` }),
      ops: { peerToPeer: true, invalidated: () => this.#forget() },
      accepts: [{ kind: "phys-list" }],
    });
  }

  /**
   * Reads blocks from `firstBlock` on into the buffer.
   *
   * @throws DmaError (rejects) ERR_DMA_BUF_REVOKED (ENODEV), ERR_DMA_BUF_DEADLOCK (EBUSY: it is moving just now), ERR_DMA_NVME_BUFFER (EAGAIN: it
   *   changed before the transfer began), ERR_DMA_BUF_ARGUMENT (EINVAL); and as {@link NvmeNamespace.read}
   */
  read(firstBlock: number, part: BufferPart = {}): Promise<void> {
    return this.#transfer("read", firstBlock, part);
  }

  /** Writes the buffer to the blocks from `firstBlock` on. @throws as {@link read} */
  write(firstBlock: number, part: BufferPart = {}): Promise<void> {
    return this.#transfer("write", firstBlock, part);
  }

  /** Lets the buffer go; no transfer may be under way. A second time does nothing. */
  detach(): void {
    this.#attachment.detach();
  }

  /** As `detach`, for `using`. */
  [Symbol.dispose](): void {
    this.detach();
  }

  async #transfer(kind: "read" | "write", firstBlock: number, part: BufferPart): Promise<void> {
    const { offset = 0, length = this.#buffer.lengthBytes - offset } = part;
    const { reservation } = this.#buffer;
    const fence = new Fence(`nvme ${kind} of block ${firstBlock}`);
    // The disk's read writes the memory: it comes after all others; a write after those who write it.
    const [list, before] = reservation.locked(() => {
      const mapping = this.#attachment.mapping ?? this.#attachment.map("bidirectional");
      const waitFor = reservation.pending(kind === "read" ? "read" : "write");
      reservation.addFence(fence, kind === "read" ? "write" : "read");
      return [mapping as PhysList, waitFor] as const;
    });
    try {
      await Promise.all(before.map((each) => new Promise<void>((done) => each.onSignal(done))));
      if (list.isVoid) throw bufferChanged(this.#buffer.name);
      const runs = byOwner(sliceOf(list.vecs, offset, length));
      const blocks: Promise<void>[] = [];
      let block = firstBlock;
      for (const run of runs) {
        blocks.push(this.#namespace[kind](block, run));
        block += run.reduce((sum, vec) => sum + vec.length, 0) / this.#namespace.blockBytes;
      }
      await everyOne(blocks);
    } finally {
      fence.signal();
    }
  }

  /** Called with the lock held. What is under way has its fences; the list itself is nothing that the device uses. */
  #forget(): void {
    if (this.#attachment.mapping) this.#attachment.unmap();
  }
}

/** One request has memory of one owner only. */
function byOwner(vecs: readonly StorageVec[]): PhysVec[][] {
  const runs: PhysVec[][] = [];
  let owner: StorageVec["provider"] | null = null;
  for (const { phys, length, provider } of vecs) {
    if (provider !== owner) runs.push([]);
    owner = provider;
    runs.at(-1)!.push({ phys, length });
  }
  return runs;
}

/** Waits for all, also when one fails: the memory is in use until the last one has ended. */
async function everyOne(all: readonly Promise<void>[]): Promise<void> {
  const failed = (await Promise.allSettled(all)).find((each) => each.status === "rejected");
  if (failed) throw failed.reason;
}
