/**
 * Buffers of one device: made when needed, kept when done with, used again.
 *
 * Idea: a request takes the first kept buffer of its direction that is large enough; smaller ones that it meets are given up, for
 * the next request will hardly be smaller. What buffers cost is counted, now and at the most.
 * Promises: {@link BufferPool.free} leaves no page, no address and no key of buffers that were given back.
 * Specified by: behaviour of Linux 7.2 VFIO for mlx5 (available buffers).
 */
import { type BufferDirection, type BufferHost, DataBuffer } from "./data-buffer.ts";

/** What buffers did and cost. */
export class BufferCounters {
  /** Buffers that were made. */
  built = 0;
  /** Requests that got a kept one. */
  reused = 0;
  /** Buffers that were given up. */
  freed = 0;
  /** Bytes of bookkeeping of all buffers that are there. */
  metadataBytes = 0;
  /** The most that those ever were. */
  metadataPeakBytes = 0;
}

/** The buffers of one device's sessions. */
export class BufferPool {
  /** What buffers did and cost so far. */
  readonly counters: BufferCounters = new BufferCounters();
  readonly #host: BufferHost;
  #kept: DataBuffer[] = [];
  #inUse = 0;

  /** Empty: buffers are made when they are asked for. */
  constructor(host: BufferHost) {
    this.#host = host;
  }

  /** Buffers that wait for a request. */
  get kept(): number {
    return this.#kept.length;
  }

  /** Buffers that were taken and not given back. */
  get inUse(): number {
    return this.#inUse;
  }

  /**
   * A buffer for `bytes` bytes or more, registered if it has a direction.
   *
   * @throws DmaError as making and registering one does
   */
  take(bytes: number, direction: BufferDirection): DataBuffer {
    const smaller: DataBuffer[] = [];
    let found: DataBuffer | undefined;
    this.#kept = this.#kept.filter((buffer) => {
      if (found || buffer.direction !== direction) return true;
      if (buffer.capacityBytes >= bytes) found = buffer;
      else smaller.push(buffer);
      return false;
    });
    for (const buffer of smaller) this.#end(buffer);
    if (found) {
      found.filledBytes = 0;
      this.counters.reused++;
    } else found = this.#build(bytes, direction);
    this.#inUse++;
    return found;
  }

  /** A buffer that was taken is done with. */
  giveBack(buffer: DataBuffer): void {
    this.#inUse--;
    this.#kept.push(buffer);
  }

  /** Frees all that wait. Cannot fail. */
  free(): void {
    for (const buffer of this.#kept) this.#end(buffer);
    this.#kept = [];
  }

  #build(bytes: number, direction: BufferDirection): DataBuffer {
    const buffer = new DataBuffer(this.#host, bytes, direction);
    try {
      if (direction !== "none") buffer.register();
    } catch (error) {
      buffer.free();
      throw error;
    }
    const { counters } = this;
    counters.built++;
    counters.metadataBytes += buffer.metadataBytes;
    counters.metadataPeakBytes = Math.max(counters.metadataPeakBytes, counters.metadataBytes);
    return buffer;
  }

  #end(buffer: DataBuffer): void {
    this.counters.metadataBytes -= buffer.metadataBytes;
    this.counters.freed++;
    buffer.free();
  }
}
