/**
 * An RDMA adapter, as its driver sees it: regions under keys, queues in memory, doorbells, and page faults that it asks for.
 *
 * Idea: what a real adapter takes through its command queue are calls here; what it reads and writes by itself (page lists, work requests,
 * completions, data) it reads and writes by DMA, so that all of that goes through the IOMMU. A call that takes something away returns
 * when the adapter uses it no more.
 * Not for: verbs and their rules (consumers/rdma).
 */
import type { DmaAddr } from "../base/index.ts";

/** A region as the adapter knows it. */
export interface RegionContext {
  /** Index and variant. */
  readonly key: number;
  /** The protection domain that may use it. */
  readonly domain: number;
  /** Access bits of verbs. */
  readonly access: number;
  /** Where it begins, as its users count. */
  readonly virt: number;
  /** Bytes. */
  readonly length: number;
  /** Blocks of the list: each of this many bytes, the first one at `virt` rounded down to it. Of a list of keys: what each key covers. */
  readonly blockBytes: number;
  /** Where the list lies for the adapter. */
  readonly list: DmaAddr;
  /** Entries of the list. */
  readonly entries: number;
  /** What the list holds: addresses of blocks, or keys of other regions. */
  readonly listOf: "blocks" | "keys";
  /** A block that is not there is asked for. Otherwise it is an error. */
  readonly onDemand: boolean;
}

/** A block that the adapter needs and does not have. */
export interface AdapterPageFault {
  /** For {@link RdmaAdapter.resume}. */
  readonly id: number;
  /** Of the region that it is in. */
  readonly key: number;
  /** Where, as users of the region count, and how many bytes. */
  readonly address: number;
  /** Bytes from `address` on, within one block. */
  readonly length: number;
  /** The device is going to write there. */
  readonly write: boolean;
}

/** A ring of work requests or completions in memory. */
export interface AdapterRing {
  /** Where it begins for the adapter; slots follow each other without gaps. */
  readonly address: DmaAddr;
  /** Slots: a power of two. */
  readonly slots: number;
}

/** A queue pair as the adapter is told of it. */
export interface QueuePairContext {
  /** 24 bits; what packets for it carry. */
  readonly number: number;
  /** The protection domain whose regions its requests may name. */
  readonly domain: number;
  /** Lost and doubled packets are repaired, and what is refused is answered. Otherwise they are dropped. */
  readonly reliable: boolean;
  /** Where its send requests are written. */
  readonly sends: AdapterRing;
  /** Where its receive requests are written. */
  readonly receives: AdapterRing;
  /** Number of the completion queue that tells when sends are done. */
  readonly sendCompletions: number;
  /** Number of the completion queue that tells when receives are done. */
  readonly receiveCompletions: number;
}

/** How a queue pair talks to the other side. */
export interface QueuePairConnection {
  /** Address of the other adapter on the wire. */
  readonly peer: number;
  /** Number of the queue pair there, 24 bits. */
  readonly peerNumber: number;
  /** Bytes of data in a packet. */
  readonly mtuBytes: number;
  /** Number of the first packet sent, 24 bits. */
  readonly firstSent: number;
  /** Number that the first packet from the other side has, 24 bits. */
  readonly firstExpected: number;
  /** Tries after a packet was lost, 0 to 7. */
  readonly retries: number;
  /** Tries after the peer had no receive request ready, 0 to 6; 7 is without end. */
  readonly notReadyRetries: number;
  /** How long an answer may take, ms. */
  readonly timeoutMs: number;
}

/** States of a queue pair that the adapter tells apart. */
export type AdapterQueueState = "reset" | "init" | "ready-to-receive" | "ready-to-send" | "error";

/** An adapter's commands. None of them throws for what a device does wrong. */
export interface RdmaAdapter {
  /** As host software calls it, for messages. */
  readonly name: string;
  /** Which address it has on the wire. */
  readonly port: number;
  /** Sizes of blocks that it has, or'ed. */
  readonly blockSizes: number;
  /** Pieces of memory that one work request may name. */
  readonly maxPieces: number;
  /** Longest message, bytes. */
  readonly maxMessageBytes: number;

  /** A region is there from now on, or anew under the same index. */
  putRegion(context: RegionContext): void;
  /** The key names nothing any more, and no access by it is under way. */
  removeRegion(key: number): void;
  /** The blocks [first, end) of the list are not what they were: what the adapter remembers of them is gone, and no access to them is under way. */
  forgetBlocks(key: number, first: number, end: number): void;

  /** A window of a domain is there, bound to nothing: work requests bind it. */
  putWindow(key: number, domain: number): void;
  /** The window is there no more, and no access by it is under way. */
  removeWindow(key: number): void;
  /** Windows that are bound to the region of this key. */
  windowsOn(key: number): number;

  /** Completions of queue `number` are written to `ring` from now on. */
  putCompletionQueue(number: number, ring: AdapterRing): void;
  /** No completion is written to this queue any more. */
  removeCompletionQueue(number: number): void;
  /** The consumer has read completions up to this one. */
  completionsRead(number: number, index: number): void;
  /** From now on the next completion is told by an interrupt. */
  armCompletions(number: number): void;

  /** The queue pair is there from now on, with the rings that `context` names. */
  putQueuePair(context: QueuePairContext): void;
  /** Which queue pair, at which address, this one exchanges packets with. */
  connectQueuePair(number: number, connection: QueuePairConnection): void;
  /** Changes what the queue pair may do: send, receive, or nothing. */
  setQueueState(number: number, state: AdapterQueueState): void;
  /** The state of the queue pair now; the adapter itself may have put it into the error state. */
  queueState(number: number): AdapterQueueState;
  /** No packet of it is sent, received or worked on any more. */
  removeQueuePair(number: number): void;
  /** Work requests up to `index` (counted without end) are in the ring. */
  ringSends(number: number, index: number): void;
  /** Receive requests up to `index` (counted without end) are in the ring. */
  ringReceives(number: number, index: number): void;

  /** Calls back for each block that is needed. The returned function stops that. */
  onPageFault(callback: (fault: AdapterPageFault) => void): () => void;
  /** The fault is dealt with. False: the block cannot be had, and the access fails. */
  resume(id: number, isThere: boolean): void;
  /** Calls back when an armed queue got a completion. */
  onCompletion(callback: (completionQueue: number) => void): () => void;
}
