/** A queue pair of the adapter: its two sides, its rings, and its state. */
import type { DmaAddr } from "../../../../base/index.ts";
import {
  type CompletionEntry,
  OPERATION,
  type Packet,
  readWork,
  STATUS,
  TRANSPORT,
  WORK,
  WORK_BYTES,
  type WorkEntry,
  writePacket,
} from "../../../../layouts/rdma/index.ts";
import type {
  AdapterQueueState,
  AdapterRing,
  Clock,
  QueuePairConnection,
  QueuePairContext,
} from "../../../../platform/index.ts";
import type { DevicePort } from "../../device.ts";
import type { RnicCompletions } from "./completions.ts";
import type { OutgoingPacket, QueuePairCore } from "./core.ts";
import type { RnicFaults } from "./faults.ts";
import type { RnicRegions } from "./regions.ts";
import { Requester } from "./requester.ts";
import { Responder } from "./responder.ts";
import type { Wire } from "./wire.ts";

/** The parts of the adapter that a queue pair uses. */
interface QueuePairParts {
  readonly port: () => DevicePort;
  readonly wire: Wire;
  readonly address: number;
  readonly regions: RnicRegions;
  readonly faults: RnicFaults;
  readonly completions: RnicCompletions;
  readonly maxMessageBytes: number;
  readonly counts: { timeouts: number };
}

/** Packets that answer. */
const ANSWERS: ReadonlySet<number> = new Set([
  OPERATION.acknowledge,
  OPERATION.atomicAcknowledge,
  OPERATION.readFirst,
  OPERATION.readMiddle,
  OPERATION.readLast,
  OPERATION.readOnly,
]);

/** One queue pair, from its creation to its end. */
export class RnicQueuePair implements QueuePairCore {
  readonly context: QueuePairContext;
  state: AdapterQueueState = "reset";
  readonly #parts: QueuePairParts;
  readonly #requester: Requester;
  readonly #responder: Responder;
  #connection: QueuePairConnection | undefined;
  #receivesRung = 0;
  #receivesTaken = 0;

  constructor(context: QueuePairContext, parts: QueuePairParts) {
    this.context = context;
    this.#parts = parts;
    this.#requester = new Requester(this);
    this.#responder = new Responder(this);
  }

  get connection(): QueuePairConnection {
    return this.#connection!;
  }
  get regions(): RnicRegions {
    return this.#parts.regions;
  }
  get faults(): RnicFaults {
    return this.#parts.faults;
  }
  get clock(): Clock {
    return this.#parts.wire.clock;
  }
  get maxMessageBytes(): number {
    return this.#parts.maxMessageBytes;
  }
  get maySend(): boolean {
    return this.state === "ready-to-send";
  }
  get counts(): { timeouts: number } {
    return this.#parts.counts;
  }

  connect(connection: QueuePairConnection): void {
    this.#connection = connection;
    this.#requester.begin(connection.firstSent);
    this.#responder.begin(connection.firstExpected);
  }

  setState(state: AdapterQueueState): void {
    const isError = state === "error" && this.state !== "error";
    this.state = state;
    if (isError) this.#flush();
    if (state === "reset") this.stop();
    if (state === "ready-to-send") this.#requester.kick();
  }

  stop(): void {
    this.#requester.stop();
    this.#responder.takeReceive();
    this.#receivesTaken = this.#receivesRung;
  }

  ringSends(index: number): void {
    this.#requester.ring(index);
    if (this.state === "error") this.#requester.flush();
  }

  ringReceives(index: number): void {
    this.#receivesRung = index;
    if (this.state === "error") this.#flushReceives();
  }

  /** A packet of the peer. In a state that takes none it is dropped. */
  receive(from: number, packet: Packet): void {
    if (this.state !== "ready-to-receive" && this.state !== "ready-to-send") return;
    if (from !== this.#connection?.peer) return;
    const transport = this.context.reliable ? TRANSPORT.reliable : TRANSPORT.unreliable;
    if (packet.transport !== transport || packet.payload.length > this.connection.mtuBytes) return;
    this.regions.missing = undefined;
    if (ANSWERS.has(packet.operation)) this.#requester.packet(packet);
    else this.#responder.packet(packet);
  }

  send(packet: OutgoingPacket): void {
    const { wire, address } = this.#parts;
    const transport = this.context.reliable ? TRANSPORT.reliable : TRANSPORT.unreliable;
    const { peer, peerNumber } = this.connection;
    wire.send(address, peer, writePacket({ ...packet, transport, destination: peerNumber }));
  }

  readSend(index: number): WorkEntry | undefined {
    return this.#readRing(this.context.sends, index);
  }

  nextReceive(): WorkEntry | undefined {
    if (this.#receivesTaken >= this.#receivesRung) return undefined;
    const entry = this.#readRing(this.context.receives, this.#receivesTaken);
    if (entry) this.#receivesTaken++;
    return entry;
  }

  complete(which: "send" | "receive", entry: Omit<CompletionEntry, "phase" | "queuePair">): void {
    const { sendCompletions, receiveCompletions, number } = this.context;
    const queue = which === "send" ? sendCompletions : receiveCompletions;
    if (!this.#parts.completions.add(queue, { ...entry, queuePair: number })) this.fail();
  }

  fail(): void {
    this.setState("error");
  }

  #flush(): void {
    this.#requester.flush();
    this.#flushReceives();
  }

  #flushReceives(): void {
    const flushed = { work: WORK.receive, status: STATUS.flushed, lengthBytes: 0, immediate: undefined };
    const begun = this.#responder.takeReceive();
    if (begun) this.complete("receive", { ...flushed, id: begun.id });
    for (let entry = this.nextReceive(); entry; entry = this.nextReceive())
      this.complete("receive", { ...flushed, id: entry.id });
  }

  #readRing(ring: AdapterRing, index: number): WorkEntry | undefined {
    const bytes = new Uint8Array(WORK_BYTES);
    const at = (ring.address + (index % ring.slots) * WORK_BYTES) as DmaAddr;
    return this.#parts.port().read(at, bytes) ? readWork(bytes) : undefined;
  }
}
