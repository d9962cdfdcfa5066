/**
 * The side of a queue pair that speaks: work requests become packets, and answers completions.
 *
 * Idea: one message at a time, with a window of packets under way. What is lost is sent again from the first packet that was not answered;
 * its bytes are gathered anew, so a page may have gone and come back meanwhile. Answers to reads are taken in order only; at a gap the rest
 * is asked for again.
 * Specified by: InfiniBand Architecture Specification, volume 1, 9.7.
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
  WORK,
  type WorkEntry,
} from "../../../../layouts/rdma/index.ts";
import type { Timer } from "../../../../platform/index.ts";
import type { QueuePairCore } from "./core.ts";
import { movePieces, piecesLength } from "./pieces.ts";
import type { Outcome } from "./regions.ts";

const O = OPERATION;
/** Packets under way at once. */
const WINDOW = 64;
/** An answer is asked for every so many packets, and at the end. */
const ANSWER_EVERY = 16;
/** Pause after the peer was not ready, ms: code 1 of the standard. */
const NOT_READY_MS = 0.01;
/** Tries without end. */
const ENDLESS = 7;

/** A message that is under way. */
interface Outgoing {
  readonly entry: WorkEntry;
  readonly firstPsn: number;
  readonly length: number;
  /** Packets, or of a read those of the answer. */
  readonly packets: number;
  /** Packets that were answered, and that were sent. */
  answered: number;
  sent: number;
  /** Of a read: the packet from which on the rest was asked for again. */
  askedAgainAt: number;
}

/** How one access of this side fails. */
const LOCAL_FAILURES: Readonly<Record<Exclude<Outcome, "done" | "absent">, number>> = {
  denied: STATUS.localProtection,
  refused: STATUS.localAccess,
};

const REFUSALS: Readonly<Record<number, number>> = {
  [REFUSAL.invalidRequest]: STATUS.remoteInvalidRequest,
  [REFUSAL.remoteAccess]: STATUS.remoteAccess,
  [REFUSAL.remoteOperation]: STATUS.remoteOperation,
};

/** Works through the requests of a queue pair. */
export class Requester {
  readonly #core: QueuePairCore;
  #rung = 0;
  #taken = 0;
  #psn = 0;
  #current: Outgoing | undefined;
  #timer: Timer | undefined;
  #retries = 0;
  #notReady = 0;
  /** Changes whenever what was planned before is void. */
  #epoch = 0;

  constructor(core: QueuePairCore) {
    this.#core = core;
  }

  begin(psn: number): void {
    this.#psn = psn;
  }

  ring(index: number): void {
    this.#rung = index;
    this.kick();
  }

  /** Begins the next request, if none is under way. */
  kick(): void {
    while (!this.#current && this.#core.maySend && this.#taken < this.#rung) {
      const entry = this.#core.readSend(this.#taken);
      if (!entry) {
        this.#core.fail();
        return;
      }
      this.#taken++;
      this.#start(entry);
    }
  }

  /** The request under way, and all behind it, end as flushed. */
  flush(): void {
    this.#stopTimer();
    this.#epoch++;
    const current = this.#current;
    this.#current = undefined;
    if (current) this.#complete(current.entry, STATUS.flushed, 0);
    while (this.#taken < this.#rung) {
      const entry = this.#core.readSend(this.#taken++);
      if (entry) this.#complete(entry, STATUS.flushed, 0);
    }
  }

  stop(): void {
    this.#stopTimer();
    this.#epoch++;
    this.#current = undefined;
    this.#taken = this.#rung;
  }

  /** An answer of the peer. */
  packet(packet: Packet): void {
    const current = this.#current;
    if (!current) return;
    const { operation, acknowledgement } = packet;
    if (operation === O.acknowledge) this.#acknowledged(current, packet.psn, acknowledgement!.syndrome);
    else if (operation === O.atomicAcknowledge) this.#atomicAnswered(current, packet);
    else if (current.entry.work === WORK.read) this.#readAnswered(current, packet);
  }

  /** Requests that are about keys, and need nobody else. */
  #doHere(entry: WorkEntry): void {
    const { regions, context } = this.#core;
    const isBind = entry.work === WORK.bindWindow;
    const isDone = isBind ? regions.bind(entry, context) : regions.windows.invalidate(entry.remoteKey, context.number);
    if (!isDone) this.#fails(entry, STATUS.windowBind);
    else if (entry.signaled) this.#complete(entry, STATUS.success, 0);
  }

  #start(entry: WorkEntry): void {
    if (entry.work === WORK.bindWindow || entry.work === WORK.invalidate) {
      this.#doHere(entry);
      return;
    }
    const { mtuBytes, retries, notReadyRetries } = this.#core.connection;
    const isAtomic = entry.work === WORK.compareSwap || entry.work === WORK.fetchAdd;
    const length = isAtomic ? 8 : piecesLength(entry.pieces);
    if (length > this.#core.maxMessageBytes || (isAtomic && piecesLength(entry.pieces) < 8)) {
      this.#fails(entry, STATUS.localLength);
      return;
    }
    const packets = Math.max(1, Math.ceil(length / mtuBytes));
    this.#current = { entry, firstPsn: this.#psn, length, packets, answered: 0, sent: 0, askedAgainAt: -1 };
    this.#psn = psnAfter(this.#psn, packets);
    this.#retries = retries;
    this.#notReady = notReadyRetries;
    this.#transmit(this.#current, 0);
  }

  /** Sends what the window allows, from packet `from` on. */
  #transmit(current: Outgoing, from: number): void {
    const epoch = ++this.#epoch;
    current.sent = from;
    const { entry } = current;
    if (entry.work === WORK.read) {
      this.#askForRest(current);
      return;
    }
    if (entry.work === WORK.compareSwap || entry.work === WORK.fetchAdd) {
      this.#sendAtomic(current);
      return;
    }
    this.#sendMore(current, epoch);
  }

  #sendMore(current: Outgoing, epoch: number): void {
    const { mtuBytes } = this.#core.connection;
    while (current.sent < current.packets && current.sent < current.answered + WINDOW) {
      const at = current.sent * mtuBytes;
      const payload = new Uint8Array(Math.min(mtuBytes, current.length - at));
      const outcome = this.#move(current.entry, 0, "gather", at, payload);
      if (outcome === "absent") {
        this.#waitForPage(epoch, () => this.#sendMore(current, epoch));
        return;
      }
      if (outcome !== "done") {
        this.#fails(current.entry, LOCAL_FAILURES[outcome]);
        return;
      }
      this.#sendOne(current, current.sent++, payload);
    }
    if (!this.#core.context.reliable) {
      this.#done(current, 0);
      return;
    }
    this.#startTimer(current);
  }

  #sendOne(current: Outgoing, index: number, payload: Uint8Array): void {
    const { entry, packets, firstPsn, length } = current;
    const isWrite = entry.work === WORK.write;
    const isLast = index === packets - 1;
    const hasImmediate = entry.immediate !== undefined;
    const base: number = isWrite ? O.writeFirst : O.sendFirst;
    let operation = base + (index === 0 ? 0 : 1);
    if (isLast) operation = base + (packets === 1 ? 4 : 2) + (hasImmediate ? 1 : 0);
    this.#core.send({
      operation,
      psn: psnAfter(firstPsn, index),
      wantsAnswer: isLast || index % ANSWER_EVERY === ANSWER_EVERY - 1,
      payload,
      ...(isWrite && index === 0 && { remote: { address: entry.remoteAddress, key: entry.remoteKey, length } }),
      ...(isLast && hasImmediate && { immediate: entry.immediate }),
    });
  }

  #askForRest(current: Outgoing): void {
    const { entry, answered, firstPsn, length } = current;
    const at = answered * this.#core.connection.mtuBytes;
    this.#core.send({
      operation: O.readRequest,
      psn: psnAfter(firstPsn, answered),
      wantsAnswer: true,
      payload: new Uint8Array(0),
      remote: { address: entry.remoteAddress + BigInt(at), key: entry.remoteKey, length: length - at },
    });
    this.#startTimer(current);
  }

  #sendAtomic(current: Outgoing): void {
    const { entry, firstPsn } = current;
    this.#core.send({
      operation: entry.work === WORK.compareSwap ? O.compareSwap : O.fetchAdd,
      psn: firstPsn,
      wantsAnswer: true,
      payload: new Uint8Array(0),
      remote: { address: entry.remoteAddress, key: entry.remoteKey, length: 8 },
      atomic: { swapOrAdd: entry.swapOrAdd, compare: entry.compare },
    });
    this.#startTimer(current);
  }

  #acknowledged(current: Outgoing, psn: number, syndrome: number): void {
    const index = psnDistance(psn, current.firstPsn);
    if (index >= current.packets) return;
    const kind = syndrome & SYNDROME.refused;
    if (kind === SYNDROME.refused && index >= 0) {
      const why = syndrome & 0x1f;
      if (why !== REFUSAL.sequence) this.#fails(current.entry, REFUSALS[why] ?? STATUS.remoteOperation);
      else this.#goBack(current, index);
    } else if (kind === SYNDROME.notReady && index >= 0) this.#peerNotReady(current, index);
    else if (kind === SYNDROME.acknowledge && index >= current.answered && isPlain(current)) {
      this.#progressed(current, index + 1);
      if (current.answered === current.packets) this.#done(current, 0);
      else this.#sendMore(current, this.#epoch);
    }
  }

  /** The peer lacks packet `index`: what is before it has come. */
  #goBack(current: Outgoing, index: number): void {
    if (index < current.answered) return;
    if (isPlain(current)) this.#progressed(current, index);
    this.#transmit(current, current.answered);
  }

  #peerNotReady(current: Outgoing, index: number): void {
    if (index < current.answered) return;
    if (isPlain(current) && index > current.answered) this.#progressed(current, index);
    if (this.#notReady !== ENDLESS && this.#notReady-- <= 0) {
      this.#fails(current.entry, STATUS.notReadyRetriesExceeded);
      return;
    }
    this.#stopTimer();
    const epoch = ++this.#epoch;
    this.#core.clock.after(NOT_READY_MS, () => {
      if (epoch === this.#epoch) this.#transmit(current, current.answered);
    });
  }

  #readAnswered(current: Outgoing, packet: Packet): void {
    const index = psnDistance(packet.psn, current.firstPsn);
    if (index < current.answered || index >= current.packets) return;
    if (index > current.answered) {
      // Once for a gap: what is still under way of the old answer must not ask again, or answers would multiply.
      if (current.askedAgainAt === current.answered) return;
      current.askedAgainAt = current.answered;
      this.#askForRest(current);
      return;
    }
    const at = index * this.#core.connection.mtuBytes;
    if (packet.payload.length !== Math.min(this.#core.connection.mtuBytes, current.length - at)) return;
    const outcome = this.#scatter(current.entry, at, packet.payload);
    if (outcome === "absent") {
      this.#waitForPage(++this.#epoch, () => this.#transmit(current, current.answered));
      return;
    }
    if (outcome !== "done") {
      this.#fails(current.entry, LOCAL_FAILURES[outcome]);
      return;
    }
    this.#progressed(current, index + 1);
    if (current.answered === current.packets) this.#done(current, current.length);
    else this.#startTimer(current);
  }

  #atomicAnswered(current: Outgoing, { psn, original }: Packet): void {
    const { work } = current.entry;
    if (psn !== current.firstPsn || (work !== WORK.compareSwap && work !== WORK.fetchAdd)) return;
    const word = new Uint8Array(8);
    new DataView(word.buffer).setBigUint64(0, original!, true);
    const outcome = this.#scatter(current.entry, 0, word);
    if (outcome === "absent") this.#waitForPage(++this.#epoch, () => this.#transmit(current, 0));
    else if (outcome !== "done") this.#fails(current.entry, LOCAL_FAILURES[outcome]);
    else this.#done(current, 8);
  }

  #scatter(entry: WorkEntry, at: number, bytes: Uint8Array): Outcome {
    return this.#move(entry, ACCESS.localWrite, "scatter", at, bytes);
  }

  #move({ pieces }: WorkEntry, asked: number, way: "gather" | "scatter", at: number, bytes: Uint8Array): Outcome {
    const { regions, context } = this.#core;
    return movePieces({ regions, pieces, domain: context.domain, asked, way }, at, bytes);
  }

  #waitForPage(epoch: number, goOn: () => void): void {
    this.#stopTimer();
    const { missing } = this.#core.regions;
    this.#core.faults.ask(missing!, (isThere) => {
      if (epoch !== this.#epoch || !this.#current) return;
      if (isThere) goOn();
      else this.#fails(this.#current.entry, STATUS.localProtection);
    });
  }

  #progressed(current: Outgoing, answered: number): void {
    current.answered = answered;
    current.sent = Math.max(current.sent, answered);
    this.#retries = this.#core.connection.retries;
    this.#notReady = this.#core.connection.notReadyRetries;
  }

  #done(current: Outgoing, lengthBytes: number): void {
    this.#stopTimer();
    this.#epoch++;
    this.#current = undefined;
    if (current.entry.signaled) this.#complete(current.entry, STATUS.success, lengthBytes);
    // The next one begins by itself, not inside of this one: a long queue must not be a deep stack.
    this.#core.clock.after(0, () => this.kick());
  }

  #fails(entry: WorkEntry, status: number): void {
    this.#stopTimer();
    this.#epoch++;
    this.#current = undefined;
    this.#complete(entry, status, 0);
    this.#core.fail();
  }

  #complete({ id, work }: WorkEntry, status: number, lengthBytes: number): void {
    this.#core.complete("send", { id, work, status, lengthBytes, immediate: undefined });
  }

  #startTimer(current: Outgoing): void {
    this.#stopTimer();
    const epoch = this.#epoch;
    this.#timer = this.#core.clock.after(this.#core.connection.timeoutMs, () => {
      if (epoch !== this.#epoch || this.#current !== current) return;
      if (this.#retries-- <= 0) this.#fails(current.entry, STATUS.retriesExceeded);
      else {
        this.#core.counts.timeouts++;
        this.#transmit(current, current.answered);
      }
    });
  }

  #stopTimer(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
  }
}

/** Its packets carry data, and each is answered for itself. */
const isPlain = ({ entry }: Outgoing): boolean => entry.work === WORK.send || entry.work === WORK.write;
