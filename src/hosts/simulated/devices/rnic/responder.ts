/**
 * The side of a queue pair that is spoken to: packets in order, accesses by key, answers.
 *
 * Idea: one packet number is expected. Later ones mean that something was lost: the peer is asked to begin again there, once. Earlier ones are
 * doubles: they are answered again, and nothing is done twice (reads are, since they do no harm; the results of atomic operations are
 * kept). A page that is not there is asked for, and the peer told to come again.
 * Specified by: InfiniBand Architecture Specification, volume 1, 9.7 (reliable service) and 9.8 (unreliable).
 */
import {
  ACCESS,
  OPERATION,
  type Packet,
  psnAfter,
  psnDistance,
  REFUSAL,
  STATUS,
  SYNDROME,
  TRANSPORT,
  WORK,
  type WorkEntry,
} from "../../../../layouts/rdma/index.ts";
import type { QueuePairContext } from "../../../../platform/index.ts";
import type { QueuePairCore } from "./core.ts";
import { movePieces, piecesLength } from "./pieces.ts";
import type { Accessor, Outcome } from "./regions.ts";

const O = OPERATION;
/** Results of atomic operations that are kept for doubles. */
const KEPT_RESULTS = 16;
/** How long a peer waits that was told to come again: the code 1 of the syndrome, 0.01 ms. */
const WAIT_CODE = 1;

/** Bytes that are asked for at once. */
const MOST_AHEAD = 2 ** 18;

const BEGINS_SEND: ReadonlySet<number> = new Set([O.sendFirst, O.sendOnly, O.sendOnlyImmediate]);
const BEGINS_WRITE: ReadonlySet<number> = new Set([O.writeFirst, O.writeOnly, O.writeOnlyImmediate]);
const GOES_ON_SEND: ReadonlySet<number> = new Set([O.sendMiddle, O.sendLast, O.sendLastImmediate]);
const GOES_ON_WRITE: ReadonlySet<number> = new Set([O.writeMiddle, O.writeLast, O.writeLastImmediate]);
const ENDS: ReadonlySet<number> = new Set([
  O.sendLast,
  O.sendLastImmediate,
  O.sendOnly,
  O.sendOnlyImmediate,
  O.writeLast,
  O.writeLastImmediate,
  O.writeOnly,
  O.writeOnlyImmediate,
]);

/** A message that is coming in. */
interface Incoming {
  readonly kind: "send" | "write";
  /** Of a write: where, under which key, and how much is announced. */
  readonly address: number;
  readonly key: number;
  readonly length: number;
  received: number;
}

/** The peer, as who accesses memory. */
const peerOf = ({ domain, number }: QueuePairContext): Accessor => ({ domain, queuePair: number });

/** Answers packets of the peer. */
export class Responder {
  readonly #core: QueuePairCore;
  #expected = 0;
  #messages = 0;
  #incoming: Incoming | undefined;
  /** The receive that a message goes into: taken when it begins. */
  #receive: WorkEntry | undefined;
  #hasAskedAgain = false;
  readonly #results = new Map<number, bigint>();

  constructor(core: QueuePairCore) {
    this.#core = core;
  }

  begin(expected: number): void {
    this.#expected = expected;
    this.#incoming = undefined;
    this.#hasAskedAgain = false;
  }

  /** The receive that was begun, for who flushes. */
  takeReceive(): WorkEntry | undefined {
    const receive = this.#receive;
    this.#receive = undefined;
    return receive;
  }

  packet(packet: Packet): void {
    const ahead = psnDistance(packet.psn, this.#expected);
    if (!this.#core.context.reliable) {
      this.#unreliable(packet, ahead);
      return;
    }
    if (ahead < 0) this.#again(packet);
    else if (ahead > 0) {
      if (this.#hasAskedAgain) return;
      this.#hasAskedAgain = true;
      this.#answer(this.#expected, SYNDROME.refused | REFUSAL.sequence);
    } else {
      this.#hasAskedAgain = false;
      this.#next(packet);
    }
  }

  /** What is out of order is dropped, up to the beginning of the next message. */
  #unreliable(packet: Packet, ahead: number): void {
    const isBeginning = BEGINS_SEND.has(packet.operation) || BEGINS_WRITE.has(packet.operation);
    if (ahead < 0 || packet.operation === O.readRequest || packet.operation >= O.compareSwap) return;
    if (ahead > 0) {
      this.#incoming = undefined;
      if (!isBeginning) return;
    }
    this.#expected = psnAfter(packet.psn, 1);
    if (this.#message(packet) !== "done") this.#incoming = undefined;
  }

  #again(packet: Packet): void {
    if (packet.operation === O.readRequest) this.#read(packet);
    else if (packet.operation === O.compareSwap || packet.operation === O.fetchAdd) {
      const original = this.#results.get(packet.psn);
      if (original !== undefined) this.#answerAtomic(packet.psn, original);
    } else this.#answer(psnAfter(this.#expected, -1), SYNDROME.acknowledge | 0x1f);
  }

  #next(packet: Packet): void {
    if (packet.operation === O.readRequest) {
      const packets = Math.max(1, Math.ceil(packet.remote!.length / this.#core.connection.mtuBytes));
      if (this.#incoming) this.#refuse(packet, REFUSAL.invalidRequest);
      else if (this.#read(packet)) this.#advance(packets);
      return;
    }
    if (packet.operation === O.compareSwap || packet.operation === O.fetchAdd) {
      if (this.#incoming) this.#refuse(packet, REFUSAL.invalidRequest);
      else if (this.#atomic(packet)) this.#advance(1);
      return;
    }
    const outcome = this.#message(packet);
    if (outcome === "done") {
      const { psn, wantsAnswer } = packet;
      if (ENDS.has(packet.operation)) this.#messages++;
      this.#expected = psnAfter(psn, 1);
      if (wantsAnswer) this.#answer(psn, SYNDROME.acknowledge | 0x1f);
      return;
    }
    if (outcome === "absent" || outcome === "not-ready") this.#tellToWait(packet);
    else this.#refuse(packet, outcome);
  }

  #advance(packets: number): void {
    this.#expected = psnAfter(this.#expected, packets);
    this.#messages++;
  }

  /** One packet of a send or a write. A number: why it is refused. */
  #message(packet: Packet): "done" | "absent" | "not-ready" | number {
    const { operation, payload } = packet;
    const begins = BEGINS_SEND.has(operation) || BEGINS_WRITE.has(operation);
    if (begins === (this.#incoming !== undefined)) return REFUSAL.invalidRequest;
    const incoming = begins ? this.#begun(packet) : this.#incoming!;
    if (typeof incoming === "number" || incoming === "not-ready") return incoming;
    const isSend = incoming.kind === "send";
    if (!begins && !(isSend ? GOES_ON_SEND : GOES_ON_WRITE).has(operation)) return REFUSAL.invalidRequest;
    const hasImmediate = packet.immediate !== undefined;
    if (!isSend && hasImmediate && !this.#ensureReceive()) return "not-ready";
    const outcome = isSend ? this.#intoReceive(incoming, payload) : this.#intoRegion(incoming, payload);
    if (outcome === "absent") return "absent";
    if (outcome !== "done") return this.#refusalOf(outcome, isSend);
    incoming.received += payload.length;
    this.#incoming = ENDS.has(operation) ? undefined : incoming;
    if (!ENDS.has(operation)) return "done";
    if (!isSend && incoming.received !== incoming.length) return REFUSAL.invalidRequest;
    if (isSend || hasImmediate) this.#received(incoming.received, packet.immediate);
    return "done";
  }

  #begun({ operation, remote }: Packet): Incoming | "not-ready" | number {
    if (BEGINS_SEND.has(operation)) {
      if (!this.#ensureReceive()) return "not-ready";
      return { kind: "send", address: 0, key: 0, length: piecesLength(this.#receive!.pieces), received: 0 };
    }
    const { address, key, length } = remote!;
    const { regions, context } = this.#core;
    if (!regions.allows(key, peerOf(context), ACCESS.remoteWrite, Number(address), length)) return REFUSAL.remoteAccess;
    return { kind: "write", address: Number(address), key, length, received: 0 };
  }

  #ensureReceive(): boolean {
    this.#receive ??= this.#core.nextReceive();
    return this.#receive !== undefined;
  }

  #intoReceive({ received, length }: Incoming, payload: Uint8Array): Outcome | "too-long" {
    if (received + payload.length > length) return "too-long";
    const { regions, context } = this.#core;
    const { pieces } = this.#receive!;
    const access = { regions, pieces, domain: context.domain, asked: ACCESS.localWrite, way: "scatter" } as const;
    const outcome = movePieces(access, received, payload);
    if (pieces.length === 1) this.#askAhead(length - received);
    return this.#asked(outcome);
  }

  #intoRegion({ received, length, address, key }: Incoming, payload: Uint8Array): Outcome | "too-long" {
    if (received + payload.length > length) return "too-long";
    const outcome = this.#core.regions.write(key, address + received, payload);
    this.#askAhead(length - received);
    return this.#asked(outcome);
  }

  /** The rest of the message will be needed too: asked for with the block that is missing, it costs the peer one pause and not many. */
  #askAhead(restBytes: number): void {
    const { regions } = this.#core;
    const { missing } = regions;
    if (missing) regions.missing = { ...missing, length: Math.max(missing.length, Math.min(restBytes, MOST_AHEAD)) };
  }

  /** A page that is not there is asked for; if it was refused before, the access is. */
  #asked(outcome: Outcome): Outcome {
    if (outcome !== "absent") return outcome;
    return this.#core.faults.wasRefused(this.#core.regions.missing!) ? "denied" : "absent";
  }

  /** What goes wrong with a receive is this side's fault: it says so to its program, and the peer only hears that it failed. */
  #refusalOf(outcome: Outcome | "too-long", isSend: boolean): number {
    if (!isSend) {
      if (outcome === "refused") return REFUSAL.remoteOperation;
      return outcome === "too-long" ? REFUSAL.invalidRequest : REFUSAL.remoteAccess;
    }
    const failed = { "too-long": STATUS.localLength, denied: STATUS.localProtection, refused: STATUS.localAccess };
    this.#completeReceive(failed[outcome as keyof typeof failed], 0, undefined);
    return outcome === "too-long" ? REFUSAL.invalidRequest : REFUSAL.remoteOperation;
  }

  #received(length: number, immediate: number | undefined): void {
    this.#completeReceive(STATUS.success, length, immediate);
  }

  #completeReceive(status: number, lengthBytes: number, immediate: number | undefined): void {
    const receive = this.takeReceive();
    if (receive) this.#core.complete("receive", { id: receive.id, work: WORK.receive, status, lengthBytes, immediate });
  }

  /** Sends what was asked for; false if it cannot be (and the peer has heard of it). */
  #read(packet: Packet): boolean {
    const { address, key, length } = packet.remote!;
    const { regions, context, connection } = this.#core;
    if (!regions.allows(key, peerOf(context), ACCESS.remoteRead, Number(address), length)) {
      this.#refuse(packet, REFUSAL.remoteAccess);
      return false;
    }
    const bytes = new Uint8Array(length);
    const outcome = this.#asked(regions.read(key, Number(address), bytes));
    if (outcome === "absent") this.#tellToWait(packet);
    else if (outcome !== "done")
      this.#refuse(packet, outcome === "refused" ? REFUSAL.remoteOperation : REFUSAL.remoteAccess);
    if (outcome !== "done") return false;
    const packets = Math.max(1, Math.ceil(length / connection.mtuBytes));
    for (let i = 0; i < packets; i++) {
      let operation: number = i === 0 ? O.readFirst : O.readMiddle;
      if (i === packets - 1) operation = packets === 1 ? O.readOnly : O.readLast;
      this.#core.send({
        operation,
        psn: psnAfter(packet.psn, i),
        wantsAnswer: false,
        payload: bytes.subarray(i * connection.mtuBytes, (i + 1) * connection.mtuBytes),
        acknowledgement: { syndrome: SYNDROME.acknowledge | 0x1f, messages: this.#messages },
      });
    }
    return true;
  }

  #atomic(packet: Packet): boolean {
    const { remote, atomic, operation, psn } = packet;
    const { regions, context } = this.#core;
    const address = Number(remote!.address);
    if (address % 8 !== 0) {
      this.#refuse(packet, REFUSAL.invalidRequest);
      return false;
    }
    if (!regions.allows(remote!.key, peerOf(context), ACCESS.remoteAtomic, address, 8)) {
      this.#refuse(packet, REFUSAL.remoteAccess);
      return false;
    }
    const word = new Uint8Array(8);
    const view = new DataView(word.buffer);
    // The page must be there for writing before anything is read: an atomic operation is done whole or not at all.
    let outcome = regions.read(remote!.key, address, word);
    const original = view.getBigUint64(0, true);
    if (outcome === "done") {
      const { swapOrAdd, compare } = atomic!;
      if (operation === O.fetchAdd) view.setBigUint64(0, BigInt.asUintN(64, original + swapOrAdd), true);
      else if (original === compare) view.setBigUint64(0, swapOrAdd, true);
      outcome = regions.write(remote!.key, address, word);
    }
    outcome = this.#asked(outcome);
    if (outcome === "done") {
      this.#results.set(psn, original);
      if (this.#results.size > KEPT_RESULTS) this.#results.delete(this.#results.keys().next().value!);
      this.#answerAtomic(psn, original);
    } else if (outcome === "absent") this.#tellToWait(packet);
    else this.#refuse(packet, outcome === "refused" ? REFUSAL.remoteOperation : REFUSAL.remoteAccess);
    return outcome === "done";
  }

  #answerAtomic(psn: number, original: bigint): void {
    this.#core.send({
      operation: O.atomicAcknowledge,
      psn,
      wantsAnswer: false,
      payload: new Uint8Array(0),
      acknowledgement: { syndrome: SYNDROME.acknowledge | 0x1f, messages: this.#messages },
      original,
    });
  }

  #tellToWait(packet: Packet): void {
    const { missing } = this.#core.regions;
    if (missing) this.#core.faults.ask(missing);
    this.#core.regions.missing = undefined;
    this.#answer(packet.psn, SYNDROME.notReady | WAIT_CODE);
  }

  /** The peer hears why, and nothing more goes on here. */
  #refuse({ psn, transport }: Packet, why: number): void {
    if (transport === TRANSPORT.reliable) this.#answer(psn, SYNDROME.refused | why);
    this.#incoming = undefined;
    this.#core.fail();
  }

  #answer(psn: number, syndrome: number): void {
    if (!this.#core.context.reliable) return;
    this.#core.send({
      operation: O.acknowledge,
      psn,
      wantsAnswer: false,
      payload: new Uint8Array(0),
      acknowledgement: { syndrome, messages: this.#messages },
    });
  }
}
