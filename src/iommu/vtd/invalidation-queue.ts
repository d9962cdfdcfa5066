/**
 * The invalidation queue of a VT-d unit, as its driver fills it.
 *
 * Idea: descriptors are staged, up to 16; a submission copies them into the ring, adds one wait, moves the tail once, and
 * polls the word that the wait writes. Each wait has a word of its own, so a late answer cannot pass for a new one. A
 * device that does not answer is tried again, and then *given up*: its descriptors are left out from then on, so that only
 * this device's translations may be stale. A unit that does not answer at all is *broken*: nothing is submitted any more.
 * Both are said once.
 * Promises: a submission neither throws nor allocates; when it returns and the unit is not broken, every descriptor was
 * executed except those that a fault event names.
 * Not for: which descriptors a range needs (cache-tags.ts).
 * Specified by: VT-d specification, 6.5.2; behaviour of Linux 7.2 (drivers/iommu/intel/dmar.c).
 */
import { type Observer, PAGE_SIZE, type PhysAddr } from "../../base/index.ts";
import { VTD_TYPE, writeWait } from "../../layouts/invalidation/index.ts";
import { FAULT_STATUS, QUEUE_WIDE_DESCRIPTORS } from "../../layouts/vtd/index.ts";
import type { Arena } from "../../pagetable/index.ts";
import type { Clock, VtdRegisters } from "../../platform/index.ts";
import type { FaultEvents } from "../fault-events.ts";
import { noMemory } from "./errors.ts";
import type { VtdFault } from "./fault-events.ts";

/** Slots of the queue, as Linux makes it. */
export const QUEUE_SLOTS = 256;
/** Descriptors in one submission, the wait not counted. */
const BATCH = 16;
/** Turns of the polling loop before the unit counts as broken, unless said otherwise. */
export const POLL_LIMIT = 100_000;
/** Times that a submission is tried as a whole when a device does not answer, though it is still there. */
const TRIES = 8;

const IN_USE = 1;
const DONE = 2;
const FRAME_WORDS = 1024;
/** Words of a descriptor; the rest of its slot, if any, is 0. */
const DESCRIPTOR_WORDS = 4;
/** Words between two status words: they are read by entry, of which each has two words. */
const STATUS_WORDS = 2;

/** What was sent, for those who count. */
export interface InvalidationCounts {
  /** Times the tail was to be moved. */
  submissions: number;
  /** Descriptors by type (bits 3:0 of word 0), waits apart. */
  readonly descriptors: number[];
  /** Wait descriptors: one for each submission. */
  waits: number;
  /** Submissions that had to be sent again. */
  retries: number;
  /** Pages of the ranges that IOTLBs were asked to forget. */
  pagesRequested: number;
  /** Pages of the blocks that were named for those ranges: never fewer. */
  pagesInvalidated: number;
  /** Ranges for which no block could be named: all of the domain or PASID went. Not among the pages. */
  wholeInvalidations: number;
}

interface InvalidationQueueOptions {
  readonly registers: VtdRegisters;
  readonly memory: Arena;
  readonly clock: Clock;
  readonly slotWords: 4 | 8;
  readonly faults: FaultEvents<VtdFault>;
  readonly observer: Observer | undefined;
  readonly pollLimit: number;
  /** Has this device left the bus? */
  readonly isGone: (requester: number) => boolean;
}

export class InvalidationQueue {
  /** Staged descriptors; write the next one at {@link at}, then {@link push} it. */
  readonly words: Uint32Array;
  /** Word of the next descriptor in {@link words}. */
  at = 0;
  readonly counts: InvalidationCounts = {
    submissions: 0,
    descriptors: new Array<number>(16).fill(0),
    waits: 0,
    retries: 0,
    pagesRequested: 0,
    pagesInvalidated: 0,
    wholeInvalidations: 0,
  };
  readonly #registers: VtdRegisters;
  readonly #memory: Arena;
  readonly #clock: Clock;
  readonly #slotWords: 4 | 8;
  readonly #faults: FaultEvents<VtdFault>;
  readonly #observer: Observer | undefined;
  readonly #pollLimit: number;
  readonly #isGone: (requester: number) => boolean;
  readonly #ring: number;
  readonly #ringOrder: number;
  readonly #status: number;
  /** The wait that goes into each slot. */
  readonly #waits = new Uint32Array(QUEUE_SLOTS * DESCRIPTOR_WORDS);
  /** Devices that are not waited for any more. */
  readonly #givenUp = new Set<number>();
  #tail = 0;
  #broken: string | undefined;

  /** @throws DmaError ERR_DMA_VTD_MEMORY (ENOMEM) */
  constructor(options: InvalidationQueueOptions) {
    const { registers, memory, slotWords } = options;
    this.#registers = registers;
    this.#memory = memory;
    this.#clock = options.clock;
    this.#slotWords = slotWords;
    this.#faults = options.faults;
    this.#observer = options.observer;
    this.#pollLimit = options.pollLimit;
    this.#isGone = options.isGone;
    this.words = new Uint32Array(BATCH * slotWords);
    this.#ringOrder = slotWords === 8 ? 1 : 0;
    this.#ring = memory.allocate(this.#ringOrder);
    if (this.#ring < 0) throw noMemory("the invalidation queue");
    this.#status = memory.allocate();
    if (this.#status < 0) {
      memory.release(this.#ring, this.#ringOrder);
      throw noMemory("the status words of the invalidation queue");
    }
    const statusPage = (memory.basePage + this.#status) * PAGE_SIZE;
    for (let slot = 0; slot < QUEUE_SLOTS; slot++) {
      const address = (statusPage + slot * STATUS_WORDS * 4) as PhysAddr;
      writeWait(this.#waits, slot * DESCRIPTOR_WORDS, address, DONE, true, false, false, false);
    }
    const page = BigInt(memory.basePage + this.#ring);
    const width = slotWords === 8 ? QUEUE_WIDE_DESCRIPTORS : 0;
    registers.writeQueueTail(0);
    registers.writeQueueAddress((page << 12n) | BigInt(width | this.#ringOrder));
  }

  /** Why the unit counts as broken; undefined while it works. */
  get broken(): string | undefined {
    return this.#broken;
  }

  /** Is this device not waited for any more? */
  hasGivenUp(requester: number): boolean {
    return this.#givenUp.has(requester);
  }

  /** The device is attached anew: it is waited for again. */
  expect(requester: number): void {
    this.#givenUp.delete(requester);
  }

  /** The descriptor at {@link at} is complete; the sixteenth is sent on with those before it. */
  push(): void {
    this.at += this.#slotWords;
    if (this.at === BATCH * this.#slotWords) this.submit(false);
  }

  /** Sends what is staged, and returns when it is done. With `drain`, after all page requests before it are in their queue. */
  submit(drain: boolean): void {
    let count = this.at / this.#slotWords;
    this.at = 0;
    if (count === 0 || this.#broken !== undefined) return;
    this.#observer?.descriptorsSubmitted?.(this.words, 0, count, this.#slotWords);
    const { counts } = this;
    counts.submissions++;
    for (let i = 0; i < count; i++) counts.descriptors[this.words[i * this.#slotWords]! & 15]!++;
    for (let tries = 1; ; tries++) {
      if (this.#send(this.words, count, drain) || this.#broken !== undefined) return;
      counts.retries++;
      count = this.#withoutTheGone(count);
      if (count === 0) return;
      if (tries === TRIES) break;
    }
    this.#oneByOne(count, drain);
  }

  /** The unit does not use the queue any more. */
  destroy(): void {
    this.#memory.release(this.#ring, this.#ringOrder);
    this.#memory.release(this.#status);
  }

  /** A device does not answer: each descriptor is submitted alone to find out which. That device is given up. */
  #oneByOne(count: number, drain: boolean): void {
    const slotWords = this.#slotWords;
    const alone = new Uint32Array(slotWords);
    for (let i = 0; i < count; i++) {
      const device = deviceOf(this.words, i * slotWords);
      if (this.#givenUp.has(device)) continue;
      alone.set(this.words.subarray(i * slotWords, (i + 1) * slotWords));
      if (this.#send(alone, 1, drain)) continue;
      if (this.#broken !== undefined) return;
      if (device >= 0) this.#giveUp(device, false);
      else this.break("it reports a device that does not answer, though none was asked");
    }
  }

  /** One attempt at the first `count` descriptors of `words`. False: not everything was executed. */
  #send(words: Uint32Array, count: number, drain: boolean): boolean {
    const memory = this.#memory;
    const slotWords = this.#slotWords;
    const first = this.#tail;
    const wait = (first + count) % QUEUE_SLOTS;
    const statusAt = this.#status * FRAME_WORDS + wait * STATUS_WORDS;
    for (let i = 0; i < count; i++) this.#store((first + i) % QUEUE_SLOTS, words, i * slotWords);
    this.#store(wait, this.#waits, wait * DESCRIPTOR_WORDS);
    if (drain) memory.words[this.#wordOf(wait)]! |= WAIT_DRAIN;
    memory.words[statusAt] = IN_USE;
    this.counts.waits++;
    this.#tail = (wait + 1) % QUEUE_SLOTS;
    this.#registers.writeQueueTail(this.#tail * slotWords * 4);
    for (let turn = 0; turn < this.#pollLimit; turn++) {
      if (memory.words[statusAt] === DONE) return true;
      const errors = this.#registers.readFaultStatus();
      if ((errors & ERRORS) !== 0 && !this.#mend(errors, first, words, count)) return false;
      this.#registers.relax();
    }
    this.break(`it did not finish ${count} invalidations`);
    return false;
  }

  /** The arena's word where a slot begins. */
  #wordOf(slot: number): number {
    return this.#ring * FRAME_WORDS + slot * this.#slotWords;
  }

  /** Puts the descriptor at `from` into a slot of the ring. The rest of a wide slot is 0 and stays so. */
  #store(slot: number, words: Uint32Array, from: number): void {
    const ring = this.#memory.words;
    const to = this.#wordOf(slot);
    ring[to + 1] = words[from + 1]!;
    ring[to + 2] = words[from + 2]!;
    ring[to + 3] = words[from + 3]!;
    ring[to] = words[from]!;
  }

  /** The unit stopped at an error. True if it goes on from there; false if the submission has to be sent again. */
  #mend(errors: number, first: number, sent: Uint32Array, count: number): boolean {
    const registers = this.#registers;
    if ((errors & FAULT_STATUS.completionError) !== 0) {
      registers.clearFaultStatus(FAULT_STATUS.completionError);
      this.#faults.push({ kind: "unexpected-completion", timeMs: this.#clock.nowMs() });
    }
    if ((errors & FAULT_STATUS.queueError) !== 0) {
      const head = registers.readQueueHead() / (this.#slotWords * 4);
      const i = (head - first + QUEUE_SLOTS) % QUEUE_SLOTS;
      if (i >= count) {
        this.break("it refuses a wait descriptor, or reads its queue where there is nothing");
        return false;
      }
      const words = [...sent.subarray(i * this.#slotWords, (i + 1) * this.#slotWords)];
      this.#standIn(head);
      registers.clearFaultStatus(FAULT_STATUS.queueError);
      this.#faults.push({ kind: "descriptor-refused", timeMs: this.#clock.nowMs(), words });
    }
    if ((errors & FAULT_STATUS.timeOut) !== 0) {
      const source = Number((registers.readQueueError() >> 32n) & 0xffffn);
      registers.clearFaultStatus(FAULT_STATUS.timeOut);
      if (source !== 0 && this.#isGone(source)) this.#giveUp(source, true);
      return false;
    }
    return true;
  }

  /** Puts a wait that only orders, which the unit passes, where it stopped. */
  #standIn(slot: number): void {
    const to = this.#wordOf(slot);
    this.#memory.words.fill(0, to, to + DESCRIPTOR_WORDS);
    this.#memory.words[to] = VTD_TYPE.wait | WAIT_FENCE;
  }

  #giveUp(requester: number, gone: boolean): void {
    this.#givenUp.add(requester);
    this.#faults.push({ kind: "device-given-up", timeMs: this.#clock.nowMs(), requester, gone });
  }

  /** Takes the descriptors of devices that were given up out of the staged ones; how many are left. */
  #withoutTheGone(count: number): number {
    const { words } = this;
    const slotWords = this.#slotWords;
    let kept = 0;
    for (let i = 0; i < count; i++) {
      if (this.#givenUp.has(deviceOf(words, i * slotWords))) continue;
      words.copyWithin(kept * slotWords, i * slotWords, (i + 1) * slotWords);
      kept++;
    }
    return kept;
  }

  /** From now on the unit is not to be trusted. */
  break(reason: string): void {
    if (this.#broken !== undefined) return;
    this.#broken = reason;
    this.#faults.push({ kind: "unit-broken", timeMs: this.#clock.nowMs(), reason });
  }
}

/** FN and PD of a wait descriptor. */
const WAIT_FENCE = 1 << 6;
const WAIT_DRAIN = 1 << 7;
const ERRORS = FAULT_STATUS.queueError | FAULT_STATUS.completionError | FAULT_STATUS.timeOut;

/** The device that a descriptor is for; -1 if it is for the unit itself. */
function deviceOf(words: Uint32Array, at: number): number {
  const type = words[at]! & 15;
  if (type === VTD_TYPE.deviceTlb) return words[at + 1]! & 0xffff;
  return type === VTD_TYPE.pasidDeviceTlb ? words[at]! >>> 16 : -1;
}
