/**
 * Queue pairs: a program's requests to its adapter, and the connection to another one's.
 *
 * Idea: requests lie in rings in memory, which the adapter reads by DMA; a doorbell says how many there are. States go one way: reset, init, ready to
 * receive, ready to send; and error from anywhere, which ends everything that waits.
 * Promises: a request that was refused is not in the ring. A slot is free again when a completion says so: its own, or that of a later one.
 * Specified by: behaviour of Linux 7.2 verbs (ib_modify_qp_is_ok, post_send, post_recv); InfiniBand Architecture Specification, volume 1, 10.3.
 */
import { PAGE_SIZE } from "../../base/index.ts";
import type { CoherentMemory } from "../../dma/index.ts";
import { KEY, PSN_SPACE, WORK, WORK_BYTES, type WorkPiece, writeWork } from "../../layouts/rdma/index.ts";
import type { AdapterQueueState, RdmaAdapter } from "../../platform/index.ts";
import type { Completion, CompletionQueue } from "./completion-queue.ts";
import type { RdmaDevice } from "./device.ts";
import { badArgument, badState, gone, queueFull } from "./errors.ts";
import type { MemoryRegion, MemoryWindow, ProtectionDomain } from "./region.ts";

/** A queue pair to make. */
export interface QueuePairOptions {
  /** Regions of this domain are the ones that its requests may name. */
  readonly domain: ProtectionDomain;
  /** Where its sends are completed. */
  readonly sendCompletions: CompletionQueue;
  /** The same as for sends unless said. */
  readonly receiveCompletions?: CompletionQueue;
  /** Sends that may wait: a power of two. 64 unless said. */
  readonly sendSlots?: number;
  /** Receives that may wait: a power of two. 64 unless said. */
  readonly receiveSlots?: number;
  /** Reliable connection; false: unreliable, which knows sends and writes only. */
  readonly reliable?: boolean;
}

/** Where the other side is, and how patient this one. */
export interface ConnectOptions {
  /** Address of the other adapter on the wire. */
  readonly peer: number;
  /** Number of the queue pair there. */
  readonly peerNumber: number;
  /** 256, 512, 1024, 2048 or 4096. 4096 unless said. */
  readonly mtuBytes?: number;
  /** Number of the first packet sent, 24 bits. 0 unless said: both sides must agree crosswise. */
  readonly firstSent?: number;
  /** Number that the first packet of the other side has. 0 unless said. */
  readonly firstExpected?: number;
  /** 7 unless said. */
  readonly retries?: number;
  /** 7 unless said, which is without end. */
  readonly notReadyRetries?: number;
  /** 0.5 unless said. */
  readonly timeoutMs?: number;
}

/** Something for the peer to hear of, or to do. */
export interface SendRequest {
  /** What is to be done. */
  readonly work: "send" | "write" | "read" | "compare-swap" | "fetch-add";
  /** Names it in its completion: a whole number below 2^53. */
  readonly id: number;
  /** Memory of this side, in order. */
  readonly pieces: readonly WorkPiece[];
  /** Of all but sends: where, as the peer's region counts. */
  readonly remoteAddress?: number;
  /** Of all but sends: the remote key of that region. */
  readonly remoteKey?: number;
  /** 32 bits that come with the receive. Sends and writes only. */
  readonly immediate?: number;
  /** Compare-swap: what must be there for the swap, 64 bits. */
  readonly compare?: bigint;
  /** Compare-swap: what is put there then, 64 bits. */
  readonly swap?: bigint;
  /** Fetch-add: what is added, 64 bits. */
  readonly add?: bigint;
  /** A completion is wanted also if all goes well. True unless said. */
  readonly signaled?: boolean;
}

/** Part of a region for the peer, under a window's key. */
export interface BindRequest {
  readonly id: number;
  readonly window: MemoryWindow;
  /** Registered with `ACCESS.windowBind`, of this domain. */
  readonly region: MemoryRegion;
  /** As users of the region count, and bytes: at least one. */
  readonly address: number;
  readonly length: number;
  /** What the peer may: {@link ACCESS} bits for remote access, and `zeroBased` if it counts from 0. */
  readonly access: number;
  /** True unless said. */
  readonly signaled?: boolean;
}

/** Memory for what the peer sends. */
export interface ReceiveRequest {
  /** Names it in its completion: a whole number below 2^53. */
  readonly id: number;
  /** Memory of this side, filled in order. */
  readonly pieces: readonly WorkPiece[];
}

const WORKS = {
  send: WORK.send,
  write: WORK.write,
  read: WORK.read,
  "compare-swap": WORK.compareSwap,
  "fetch-add": WORK.fetchAdd,
} as const;

const MTUS: readonly number[] = [256, 512, 1024, 2048, 4096];

/** Requests in one ring, by the order in which they were posted. */
class Ring {
  readonly slots: number;
  readonly memory: CoherentMemory;
  posted = 0;
  #done = 0;
  /** Names of those that wait, oldest first. */
  readonly #waiting: number[] = [];

  constructor(device: RdmaDevice, slots: number) {
    if (!(slots >= 1 && slots <= 2 ** 16 && Number.isInteger(Math.log2(slots))))
      throw badArgument(`a queue of ${slots} slots: a power of two up to 2^16 is needed`);
    this.slots = slots;
    this.memory = device.dma!.allocCoherent(Math.ceil((slots * WORK_BYTES) / PAGE_SIZE) * PAGE_SIZE);
  }

  get isFull(): boolean {
    return this.posted - this.#done >= this.slots;
  }

  get waiting(): number {
    return this.#waiting.length;
  }

  put(bytes: Uint8Array, id: number): void {
    this.memory.write((this.posted % this.slots) * WORK_BYTES, bytes);
    this.posted++;
    this.#waiting.push(id);
  }

  /** The request of that name, and those before it, are done. */
  completed(id: number): void {
    const at = this.#waiting.indexOf(id);
    if (at < 0) return;
    this.#waiting.splice(0, at + 1);
    this.#done += at + 1;
  }

  clear(): void {
    this.#done += this.#waiting.length;
    this.#waiting.length = 0;
  }
}

/** A queue pair of a device. */
export class QueuePair implements Disposable {
  /** What packets for it carry, 24 bits. */
  readonly number: number;
  /** Regions of this domain are the ones that its requests may name. */
  readonly domain: ProtectionDomain;
  /** Reliable connection; else unreliable. */
  readonly reliable: boolean;
  readonly #adapter: RdmaAdapter;
  readonly #sends: Ring;
  readonly #receives: Ring;
  readonly #stopFollowing: (() => void)[];
  #freed = false;

  /** @throws DmaError ERR_DMA_RDMA_ARGUMENT (EINVAL), and as `Dma.allocCoherent`; nothing is left then */
  constructor(device: RdmaDevice, options: QueuePairOptions) {
    const { domain, sendCompletions, sendSlots = 64, receiveSlots = 64, reliable = true } = options;
    const { receiveCompletions = sendCompletions } = options;
    if (!device.adapter || !device.dma) throw badArgument("a software device has no queues");
    this.domain = domain;
    this.reliable = reliable;
    this.#adapter = device.adapter;
    this.#sends = new Ring(device, sendSlots);
    try {
      this.#receives = new Ring(device, receiveSlots);
    } catch (error) {
      this.#sends.memory.free();
      throw error;
    }
    this.number = device.nextQueueNumber();
    this.#adapter.putQueuePair({
      number: this.number,
      domain: domain.number,
      reliable,
      sends: { address: this.#sends.memory.address, slots: sendSlots },
      receives: { address: this.#receives.memory.address, slots: receiveSlots },
      sendCompletions: sendCompletions.number,
      receiveCompletions: receiveCompletions.number,
    });
    const reader = (completion: Completion): void =>
      (completion.work === "receive" ? this.#receives : this.#sends).completed(completion.id);
    this.#stopFollowing = [sendCompletions.follow(this.number, reader), receiveCompletions.follow(this.number, reader)];
    this.#adapter.setQueueState(this.number, "init");
  }

  /** As the adapter has it now; it may have gone into the error state by itself. */
  get state(): AdapterQueueState {
    return this.#adapter.queueState(this.number);
  }

  /** Requests that were posted and have not ended. */
  get waiting(): {
    /** In the send queue. */
    readonly sends: number;
    /** In the receive queue. */
    readonly receives: number;
  } {
    return { sends: this.#sends.waiting, receives: this.#receives.waiting };
  }

  /**
   * Connects it, and makes it ready to receive and to send.
   *
   * @throws DmaError ERR_DMA_RDMA_STATE, ERR_DMA_RDMA_ARGUMENT (EINVAL)
   */
  connect(options: ConnectOptions): void {
    const { peer, peerNumber, mtuBytes = 4096, firstSent = 0, firstExpected = 0 } = options;
    const { retries = 7, notReadyRetries = 7, timeoutMs = 0.5 } = options;
    if (this.state !== "init") throw badState("connection", this.state);
    if (!MTUS.includes(mtuBytes)) throw badArgument(`packets of ${mtuBytes} bytes: ${MTUS.join(", ")} are possible`);
    for (const psn of [firstSent, firstExpected])
      if (!(Number.isInteger(psn) && psn >= 0 && psn < PSN_SPACE))
        throw badArgument(`a first packet number of ${psn}: 24 bits are needed`);
    if (![retries, notReadyRetries].every((tries) => Number.isInteger(tries) && tries >= 0 && tries <= 7))
      throw badArgument("tries are from 0 to 7");
    this.#adapter.connectQueuePair(this.number, {
      peer,
      peerNumber,
      mtuBytes,
      firstSent,
      firstExpected,
      retries,
      notReadyRetries,
      timeoutMs,
    });
    this.#adapter.setQueueState(this.number, "ready-to-receive");
    this.#adapter.setQueueState(this.number, "ready-to-send");
  }

  /** Everything that waits ends as flushed. */
  fail(): void {
    this.#adapter.setQueueState(this.number, "error");
  }

  /** As it was made: what waits is forgotten, without completions. */
  reset(): void {
    this.#adapter.setQueueState(this.number, "reset");
    this.#sends.clear();
    this.#receives.clear();
    this.#adapter.setQueueState(this.number, "init");
  }

  /**
   * Posts a request. In the error state it ends as flushed.
   *
   * @throws DmaError ERR_DMA_RDMA_STATE, ERR_DMA_RDMA_ARGUMENT (EINVAL), ERR_DMA_RDMA_QUEUE_FULL (ENOMEM); nothing is posted then
   */
  send(request: SendRequest): void {
    const { work, id, pieces, remoteAddress = 0, remoteKey = 0, immediate, compare = 0n, signaled = true } = request;
    if (this.#freed) throw gone("queue pair");
    const { state } = this;
    if (state !== "ready-to-send" && state !== "error") throw badState("sends", state);
    this.#checkPieces(id, pieces);
    const isAtomic = work === "compare-swap" || work === "fetch-add";
    if (!this.reliable && (work === "read" || isAtomic)) throw badArgument(`an unreliable connection has no ${work}`);
    if (immediate !== undefined && work !== "send" && work !== "write")
      throw badArgument(`a ${work} carries no immediate`);
    if (this.#sends.isFull) throw queueFull("send queue", this.#sends.slots);
    const swapOrAdd = (work === "fetch-add" ? request.add : request.swap) ?? 0n;
    this.#sends.put(
      writeWork({
        work: WORKS[work],
        signaled,
        immediate,
        id,
        remoteAddress: BigInt(remoteAddress),
        remoteKey,
        compare,
        swapOrAdd,
        pieces,
      }),
      id,
    );
    this.#adapter.ringSends(this.number, this.#sends.posted);
  }

  /**
   * Posts that a window be bound to a part of a region: from then on a peer may use that part by the window's key, on this connection. In order with
   * other requests; what the adapter refuses ends with "window-bind", and the connection with it.
   *
   * @returns the window's new key, for the peer
   * @throws DmaError as {@link QueuePair.send}; ERR_DMA_RDMA_ARGUMENT (EINVAL) on an unreliable connection
   */
  bindWindow({ id, window, region, address, length, access, signaled = true }: BindRequest): number {
    const pieces = [{ address, length, key: region.key }];
    this.#checkPost(id, pieces);
    if (!this.reliable) throw badArgument("an unreliable connection binds no windows");
    const next = KEY.of(KEY.index(window.key), KEY.variant(window.key) + 1);
    const work = { work: WORK.bindWindow, signaled, id, pieces, remoteKey: window.key, immediate: access };
    this.#post(writeWork({ ...work, remoteAddress: 0n, compare: BigInt(next), swapOrAdd: 0n }), id);
    window.key = next;
    return next;
  }

  /**
   * Posts that a window's key names nothing any more, after all requests before it.
   *
   * @throws DmaError as {@link QueuePair.send}
   */
  invalidate({
    id,
    key,
    signaled = true,
  }: {
    readonly id: number;
    readonly key: number;
    readonly signaled?: boolean;
  }): void {
    this.#checkPost(id, []);
    const nothing = { immediate: undefined, remoteAddress: 0n, compare: 0n, swapOrAdd: 0n, pieces: [] };
    this.#post(writeWork({ ...nothing, work: WORK.invalidate, signaled, id, remoteKey: key }), id);
  }

  #checkPost(id: number, pieces: readonly WorkPiece[]): void {
    if (this.#freed) throw gone("queue pair");
    const { state } = this;
    if (state !== "ready-to-send" && state !== "error") throw badState("sends", state);
    this.#checkPieces(id, pieces);
    if (this.#sends.isFull) throw queueFull("send queue", this.#sends.slots);
  }

  #post(bytes: Uint8Array, id: number): void {
    this.#sends.put(bytes, id);
    this.#adapter.ringSends(this.number, this.#sends.posted);
  }

  /** Posts memory for what the peer sends. @throws DmaError as {@link send} */
  receive({ id, pieces }: ReceiveRequest): void {
    if (this.#freed) throw gone("queue pair");
    if (this.state === "reset") throw badState("receives", "reset");
    this.#checkPieces(id, pieces);
    if (this.#receives.isFull) throw queueFull("receive queue", this.#receives.slots);
    const nothing = { immediate: undefined, remoteAddress: 0n, remoteKey: 0, compare: 0n, swapOrAdd: 0n };
    this.#receives.put(writeWork({ ...nothing, work: WORK.receive, signaled: true, id, pieces }), id);
    this.#adapter.ringReceives(this.number, this.#receives.posted);
  }

  /** Ends it: what waits is forgotten. A second time does nothing. */
  free(): void {
    if (this.#freed) return;
    this.#freed = true;
    this.#adapter.removeQueuePair(this.number);
    for (const stop of this.#stopFollowing) stop();
    this.#sends.memory.free();
    this.#receives.memory.free();
  }

  /** As `free`, for `using`. */
  [Symbol.dispose](): void {
    this.free();
  }

  #checkPieces(id: number, pieces: readonly WorkPiece[]): void {
    if (!(Number.isSafeInteger(id) && id >= 0)) throw badArgument(`a request named ${id}: a whole number is needed`);
    const { maxPieces } = this.#adapter;
    if (pieces.length > maxPieces) throw badArgument(`${pieces.length} pieces: the adapter takes ${maxPieces}`);
    for (const { length } of pieces)
      if (!(Number.isInteger(length) && length >= 0 && length < 2 ** 32))
        throw badArgument(`a piece of ${length} bytes: 0 to 2^32 - 1 are possible`);
  }
}
