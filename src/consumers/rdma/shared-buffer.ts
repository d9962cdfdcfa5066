/**
 * Buffers of other drivers, as a region needs them: whoever exports one says where it lies for a device, and may take it back.
 *
 * Idea: the two sides meet at a few calls: attach, pin, map, wait, and the other way the news that the buffer moves. What the exporter
 * is (a heap, a BAR, memory of a GPU) is its own affair; dma-buf is one way to be it.
 * Specified by: behaviour of Linux 7.2 dma-buf, as far as RDMA uses it.
 */
import type { Dma, DmaVec } from "../../dma/index.ts";

/** A buffer that several devices use. */
export interface SharedBuffer {
  /** Bytes; never changes. */
  readonly lengthBytes: number;
  /**
   * A device of `importer` begins to use it. Maps nothing.
   *
   * @throws DmaError if the exporter has nothing for such a device
   */
  attach(importer: BufferImporter): BufferAttachment;
}

/** Who uses a buffer. */
export interface BufferImporter {
  /** By which it maps. */
  readonly dma: Dma;
  /** The device reaches memory of other devices. */
  readonly allowPeers: boolean;
  /** The buffer is about to move or to go: when this returns, the device uses the mapping no more. Absent: it may not move. */
  readonly invalidate?: () => void;
}

/** One device's use of a buffer. Mapping, unmapping and invalidation are done under the buffer's lock, by one at a time. */
export interface BufferAttachment {
  /** It stays where it is. @throws DmaError if the exporter cannot promise that */
  pin(): void;
  /** Undoes one `pin`. Cannot fail. */
  unpin(): void;
  /** Where it lies for the device, in order. @throws DmaError */
  map(): readonly DmaVec[];
  /** Ends one `map`, with the segments that it gave. Cannot fail. */
  unmap(segments: readonly DmaVec[]): void;
  /** Waits until the exporter's moves are done. @throws DmaError ETIMEDOUT */
  wait(): void;
  /** Ends the attachment; nothing of it may be mapped or pinned any more. Cannot fail. */
  detach(): void;
}
