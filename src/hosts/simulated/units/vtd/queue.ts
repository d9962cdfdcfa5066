/**
 * The invalidation queue of a simulated VT-d unit, from the side that empties it.
 *
 * Idea: descriptors are read from memory, with the unit's own masks, one after the other up to the tail. Each takes the
 * time that it is told to take; the queue is looked at whenever somebody looks at the unit, so nothing happens early.
 * An error stops it until software has cleared the error: at a descriptor that is none (IQE), or at a wait for a device
 * that did not answer (ITE), which is then dropped.
 * Specified by: VT-d specification, 6.5.2.
 */
import type { PhysPage } from "../../../../base/index.ts";
import { FAULT_STATUS, QUEUE_WIDE_DESCRIPTORS } from "../../../../layouts/vtd/index.ts";
import type { TableMemory } from "../../../../platform/index.ts";

/** What the queue tells the unit to forget. */
export interface InvalidationTarget {
  context(granularity: number, domainId: number, requester: number, functionMask: number): void;
  pasidCache(granularity: number, domainId: number, pasid: number): void;
  /** Order 0 to 52; only page-selective ones have a block. */
  iotlb(granularity: number, domainId: number, page: number, order: number, leafOnly: boolean): void;
  pasidIotlb(
    granularity: number,
    domainId: number,
    pasid: number,
    page: number,
    order: number,
    leafOnly: boolean,
  ): void;
  /** False: the device does not answer. `pasid` -1: requests without. */
  deviceTlb(requester: number, pasid: number, page: number, order: number): boolean;
  pageResponse(requester: number, pasid: number, code: number, group: number): void;
  /** Page requests under way reach their queue now. */
  drainPageRequests(): void;
}

/** What goes wrong, on request. Numbers count down. */
export interface QueueMisbehaviour {
  /** The unit fetches nothing any more. */
  stuck: boolean;
  /** Time that each descriptor takes. */
  descriptorMs: number;
  /** Descriptors, waits apart, that are passed without effect. */
  lose: number;
  /** Descriptors that are refused although they are right (IQE). */
  refuse: number;
  /** Descriptors after which the unit believes that a device answered unasked (ICE). */
  unexpected: number;
  /** Devices that did not answer are not named. */
  hideSource: boolean;
}

/** What a unit has read from its queue. */
export interface QueueCounts {
  /** Times that the tail was moved. */
  submissions: number;
  /** Descriptors executed, by type (bits 3:0). */
  readonly descriptors: number[];
  /** Wait descriptors executed. */
  waits: number;
}

const TYPES = {
  context: 1,
  iotlb: 2,
  deviceTlb: 3,
  wait: 5,
  pasidIotlb: 6,
  pasidCache: 7,
  pasidDeviceTlb: 8,
  response: 9,
};

export class InvalidationEngine {
  readonly counts: QueueCounts = { submissions: 0, descriptors: new Array<number>(16).fill(0), waits: 0 };
  readonly misbehaviour: QueueMisbehaviour = {
    stuck: false,
    descriptorMs: 0,
    lose: 0,
    refuse: 0,
    unexpected: 0,
    hideSource: false,
  };
  /** IQE, ICE and ITE of the fault status register. */
  errors = 0;
  /** The device of the last time-out. */
  silentDevice = 0;
  readonly #memory: TableMemory;
  readonly #forgetting: InvalidationTarget;
  readonly #nowMs: () => number;
  readonly #timeoutMs: number;
  #base = 0 as PhysPage;
  #slotBytes = 16;
  #bytes = 4096;
  #head = 0;
  #tail = 0;
  /** When the descriptor at the head is done. */
  #dueMs = 0;
  /** A device that was asked since the last wait and did not answer. */
  #unanswered = -1;

  constructor(memory: TableMemory, forgetting: InvalidationTarget, nowMs: () => number, timeoutMs: number) {
    this.#memory = memory;
    this.#forgetting = forgetting;
    this.#nowMs = nowMs;
    this.#timeoutMs = timeoutMs;
  }

  configure(address: bigint): void {
    this.#base = Number(address >> 12n) as PhysPage;
    this.#slotBytes = (Number(address & 0xfffn) & QUEUE_WIDE_DESCRIPTORS) !== 0 ? 32 : 16;
    this.#bytes = 4096 * 2 ** Number(address & 7n);
    this.#head = 0;
    this.#tail = 0;
  }

  get head(): number {
    return this.#head;
  }

  moveTail(offset: number): void {
    if (offset >= this.#bytes || offset % this.#slotBytes !== 0) {
      this.errors |= FAULT_STATUS.queueError; // there is no such slot
      return;
    }
    if (offset !== this.#tail) this.counts.submissions++;
    if (this.#head === this.#tail) this.#dueMs = this.#nowMs() + this.misbehaviour.descriptorMs;
    this.#tail = offset;
    this.work();
  }

  /** Clears error bits; the unit goes on. */
  clear(bits: number): void {
    this.errors &= ~bits;
    this.work();
  }

  /** Executes what is due. */
  work(): void {
    while (this.#head !== this.#tail && this.#isRunning && this.#nowMs() >= this.#dueMs) {
      if (!this.#execute()) return;
      this.#head = (this.#head + this.#slotBytes) % this.#bytes;
      this.#dueMs += this.misbehaviour.descriptorMs;
    }
  }

  get #isRunning(): boolean {
    return !this.misbehaviour.stuck && (this.errors & (FAULT_STATUS.queueError | FAULT_STATUS.timeOut)) === 0;
  }

  /** The descriptor at the head. False: it stays there for now. */
  #execute(): boolean {
    const table = (this.#base + Math.floor(this.#head / 4096)) as PhysPage;
    const at = (this.#head % 4096) / 8;
    const w0 = this.#memory.low(table, at);
    const w1 = this.#memory.high(table, at);
    const w2 = this.#memory.low(table, at + 1);
    const w3 = this.#memory.high(table, at + 1);
    const type = w0 & 15;
    if (type === TYPES.wait) return this.#wait(w0, w1, w2, w3);
    const wrong = this.misbehaviour;
    if (wrong.refuse > 0 || !this.#isKnown(w0, table, at)) {
      if (wrong.refuse > 0) wrong.refuse--;
      this.errors |= FAULT_STATUS.queueError;
      return false;
    }
    this.counts.descriptors[type]!++;
    if (wrong.unexpected > 0) {
      wrong.unexpected--;
      this.errors |= FAULT_STATUS.completionError;
    }
    if (wrong.lose > 0) wrong.lose--;
    else this.#forget(type, w0, w1, w2, w3);
    return true;
  }

  #isKnown(w0: number, table: PhysPage, at: number): boolean {
    const type = w0 & 15;
    const g = (w0 >>> 4) & 3;
    if ((w0 & 0xe00) !== 0 && type !== TYPES.deviceTlb) return false;
    if (this.#slotBytes === 32)
      for (let i = 2; i < 4; i++)
        if ((this.#memory.low(table, at + i) | this.#memory.high(table, at + i)) !== 0) return false;
    switch (type) {
      case TYPES.context:
      case TYPES.iotlb:
        return g !== 0;
      case TYPES.pasidIotlb:
        return g >= 2;
      case TYPES.pasidCache:
        return g !== 2;
      default:
        return type === TYPES.deviceTlb || type === TYPES.pasidDeviceTlb || type === TYPES.response || type === 4;
    }
  }

  #forget(type: number, w0: number, w1: number, w2: number, w3: number): void {
    const to = this.#forgetting;
    const g = (w0 >>> 4) & 3;
    const domainId = w0 >>> 16;
    const pasid = w1 & 0xfffff;
    const page = (w3 >>> 0) * 2 ** 20 + (w2 >>> 12);
    const order = w2 & 63;
    const leafOnly = (w2 & 64) !== 0;
    switch (type) {
      case TYPES.context:
        to.context(g, domainId, w1 & 0xffff, (w1 >>> 16) & 3);
        break;
      case TYPES.pasidCache:
        to.pasidCache(g, domainId, pasid);
        break;
      case TYPES.iotlb:
        to.iotlb(g, domainId, page, order, leafOnly);
        break;
      case TYPES.pasidIotlb:
        to.pasidIotlb(g, domainId, pasid, page, order, leafOnly);
        break;
      case TYPES.deviceTlb:
        this.#ask(w1 & 0xffff, -1, page, (w2 & 1) !== 0);
        break;
      case TYPES.pasidDeviceTlb:
        this.#ask(w0 >>> 16, pasid, page, (w2 & 0x800) !== 0);
        break;
      case TYPES.response:
        to.pageResponse(w0 >>> 16, (w0 & 16) !== 0 ? pasid : -1, (w0 >>> 12) & 15, (w2 >>> 3) & 511);
        break;
    }
  }

  /** Sends an invalidation to a device. With `sized`, the ones at the bottom of the page number say how much. */
  #ask(requester: number, pasid: number, encoded: number, sized: boolean): void {
    let order = 0;
    if (sized) {
      for (let rest = encoded; rest % 2 === 1 && order < 51; rest = Math.floor(rest / 2)) order++;
      order++;
    }
    const page = Math.floor(encoded / 2 ** order) * 2 ** order;
    if (!this.#forgetting.deviceTlb(requester, pasid, page, order)) this.#unanswered = requester;
  }

  #wait(w0: number, w1: number, w2: number, w3: number): boolean {
    if (this.#unanswered >= 0) {
      if (this.#nowMs() < this.#dueMs + this.#timeoutMs) return false;
      this.silentDevice = this.misbehaviour.hideSource ? 0 : this.#unanswered;
      this.#unanswered = -1;
      this.errors |= FAULT_STATUS.timeOut;
      return true; // passed without its status being written
    }
    this.counts.waits++;
    if ((w0 & 128) !== 0) this.#forgetting.drainPageRequests();
    if ((w0 & 32) !== 0) {
      const address = (w3 >>> 0) * 2 ** 32 + (w2 >>> 0);
      const page = Math.floor(address / 4096) as PhysPage;
      const entry = Math.floor((address % 4096) / 8);
      if (address % 8 === 0) this.#memory.store(page, entry, w1, this.#memory.high(page, entry));
      else this.#memory.store(page, entry, this.#memory.low(page, entry), w1);
    }
    return true;
  }
}
