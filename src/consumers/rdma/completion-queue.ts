/**
 * Completions: what the adapter says of requests that it has worked on, in a ring that it writes by DMA.
 *
 * Idea: one bit of a completion changes with each round of the ring, so that the reader knows new ones without asking the adapter.
 */
import { PAGE_SIZE } from "../../base/index.ts";
import type { CoherentMemory } from "../../dma/index.ts";
import { COMPLETION_BYTES, readCompletion, STATUS, WORK } from "../../layouts/rdma/index.ts";
import type { RdmaAdapter } from "../../platform/index.ts";
import type { RdmaDevice } from "./device.ts";
import { badArgument, gone } from "./errors.ts";

/** How a request ended. */
export type CompletionStatus =
  | "success"
  /** A piece does not hold what came, or a message is too long. */
  | "local-length"
  /** A piece's key does not allow it, or its page cannot be had. */
  | "local-protection"
  /** The IOMMU did not let the adapter through to its own memory. */
  | "local-access"
  /** The queue pair went into the error state before this was worked on. */
  | "flushed"
  | "remote-invalid-request"
  | "remote-access"
  | "remote-operation"
  /** The peer does not answer. */
  | "retries-exceeded"
  /** The peer kept saying that it is not ready. */
  | "not-ready-retries-exceeded"
  /** A window could not be bound so, or what was to be invalidated is no window that this queue pair has bound. */
  | "window-bind";

/** What a request did. */
export type WorkKind =
  | "send"
  | "write"
  | "read"
  | "compare-swap"
  | "fetch-add"
  | "receive"
  | "bind-window"
  | "invalidate";

/** A completion. */
export interface Completion {
  /** As the request was named. */
  readonly id: number;
  /** What the request was. */
  readonly work: WorkKind;
  /** How it went. */
  readonly status: CompletionStatus;
  /** Bytes that came, of a receive, read or atomic operation. */
  readonly lengthBytes: number;
  /** The 32 bits that came with a receive; undefined: none did. */
  readonly immediate: number | undefined;
  /** Number of the queue pair that the request was posted to. */
  readonly queuePair: number;
}

const STATUSES: Readonly<Record<number, CompletionStatus>> = {
  [STATUS.success]: "success",
  [STATUS.localLength]: "local-length",
  [STATUS.localProtection]: "local-protection",
  [STATUS.localAccess]: "local-access",
  [STATUS.flushed]: "flushed",
  [STATUS.remoteInvalidRequest]: "remote-invalid-request",
  [STATUS.remoteAccess]: "remote-access",
  [STATUS.remoteOperation]: "remote-operation",
  [STATUS.retriesExceeded]: "retries-exceeded",
  [STATUS.notReadyRetriesExceeded]: "not-ready-retries-exceeded",
  [STATUS.windowBind]: "window-bind",
};

const WORKS: Readonly<Record<number, WorkKind>> = {
  [WORK.send]: "send",
  [WORK.write]: "write",
  [WORK.read]: "read",
  [WORK.compareSwap]: "compare-swap",
  [WORK.fetchAdd]: "fetch-add",
  [WORK.receive]: "receive",
  [WORK.bindWindow]: "bind-window",
  [WORK.invalidate]: "invalidate",
};

/** A ring of completions, for any number of queue pairs of a device. */
export class CompletionQueue implements Disposable {
  /** The adapter's number for it. */
  readonly number: number;
  /** Completions that may wait. */
  readonly slots: number;
  readonly #adapter: RdmaAdapter;
  readonly #memory: CoherentMemory;
  readonly #bytes = new Uint8Array(COMPLETION_BYTES);
  readonly #readers = new Map<number, (completion: Completion) => void>();
  #read = 0;
  #freed = false;

  /**
   * @param slots completions that may wait: a power of two, and one for each request that is under way
   * @throws DmaError ERR_DMA_RDMA_ARGUMENT (EINVAL), and as `Dma.allocCoherent`
   */
  constructor(device: RdmaDevice, slots: number) {
    const { adapter, dma } = device;
    if (!adapter || !dma) throw badArgument("a software device has no queues");
    if (!(slots >= 1 && slots <= 2 ** 20 && Number.isInteger(Math.log2(slots))))
      throw badArgument(`a completion queue of ${slots} slots: a power of two up to 2^20 is needed`);
    this.slots = slots;
    this.#adapter = adapter;
    this.#memory = dma.allocCoherent(Math.ceil((slots * COMPLETION_BYTES) / PAGE_SIZE) * PAGE_SIZE);
    this.number = device.nextQueueNumber();
    adapter.putCompletionQueue(this.number, { address: this.#memory.address, slots });
  }

  /** The next completion; undefined: there is none yet. */
  poll(): Completion | undefined {
    if (this.#freed) throw gone("completion queue");
    this.#memory.read((this.#read % this.slots) * COMPLETION_BYTES, this.#bytes);
    const entry = readCompletion(this.#bytes);
    const phase = Math.floor(this.#read / this.slots) % 2 === 0 ? 1 : 0;
    if (entry.phase !== phase) return undefined;
    this.#read++;
    this.#adapter.completionsRead(this.number, this.#read);
    const { id, lengthBytes, immediate, queuePair } = entry;
    const completion: Completion = {
      id,
      work: WORKS[entry.work] ?? "send",
      // What the adapter should not say is no success.
      status: STATUSES[entry.status] ?? "local-access",
      lengthBytes,
      immediate,
      queuePair,
    };
    this.#readers.get(queuePair)?.(completion);
    return completion;
  }

  /** All that have come. */
  drain(): Completion[] {
    const all: Completion[] = [];
    for (let one = this.poll(); one; one = this.poll()) all.push(one);
    return all;
  }

  /** From now on the next completion is told by an interrupt, once. Poll again afterwards: one may have come before. */
  arm(): void {
    this.#adapter.armCompletions(this.number);
  }

  /** A queue pair hears of its completions as they are read: it counts its free slots. */
  follow(queuePair: number, reader: (completion: Completion) => void): () => void {
    this.#readers.set(queuePair, reader);
    return () => void this.#readers.delete(queuePair);
  }

  /** Its queue pairs must be gone. A second time does nothing. */
  free(): void {
    if (this.#freed) return;
    this.#freed = true;
    this.#adapter.removeCompletionQueue(this.number);
    this.#memory.free();
  }

  /** As `free`, for `using`. */
  [Symbol.dispose](): void {
    this.free();
  }
}
