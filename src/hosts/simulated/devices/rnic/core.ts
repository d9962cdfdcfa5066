/** What the two sides of a queue pair have of it: a seam, so that neither knows the whole. */
import type { CompletionEntry, Packet, WorkEntry } from "../../../../layouts/rdma/index.ts";
import type { Clock, QueuePairConnection, QueuePairContext } from "../../../../platform/index.ts";
import type { RnicFaults } from "./faults.ts";
import type { RnicRegions } from "./regions.ts";

/** A packet without what its queue pair adds. */
export type OutgoingPacket = Omit<Packet, "transport" | "destination">;

/** What both sides of a queue pair have of it. */
export interface QueuePairCore {
  readonly context: QueuePairContext;
  readonly connection: QueuePairConnection;
  readonly regions: RnicRegions;
  readonly faults: RnicFaults;
  readonly clock: Clock;
  readonly maxMessageBytes: number;
  readonly maySend: boolean;
  readonly counts: { timeouts: number };
  send(packet: OutgoingPacket): void;
  readSend(index: number): WorkEntry | undefined;
  /** The next receive, taken out of the ring; undefined if there is none. */
  nextReceive(): WorkEntry | undefined;
  complete(which: "send" | "receive", entry: Omit<CompletionEntry, "phase" | "queuePair">): void;
  /** Into the error state: everything that waits ends as flushed. */
  fail(): void;
}
