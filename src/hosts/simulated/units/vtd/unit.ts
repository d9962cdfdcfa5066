/**
 * A simulated VT-d unit: registers on one side, device requests on the other, and between them what it remembers.
 *
 * Idea: everything it knows it reads from memory by its own walk, from the root table on, and keeps until an invalidation
 * that it reads from its queue tells it to forget. Stale entries stay usable: only then can a missing invalidation show.
 * A refused request is a fault record, never an exception.
 * Not for: being called by the stack in any way but through its registers.
 * Specified by: VT-d specification, 3, 6, 7 and 11.
 */
import type { IovaPage, PhysPage } from "../../../../base/index.ts";
import { READ, WRITE } from "../../../../layouts/pagetable/index.ts";
import { FAULT_STATUS, GLOBAL } from "../../../../layouts/vtd/index.ts";
import type { Clock, TableMemory, VtdRegisters } from "../../../../platform/index.ts";
import { capabilityWords, type VtdTraits } from "./capabilities.ts";
import { DeviceTlb } from "./device-tlb.ts";
import { REASON } from "./fault-reasons.ts";
import { FaultRecords } from "./fault-records.ts";
import { type PageRequest, PageRequestRing } from "./page-request-ring.ts";
import { InvalidationEngine, type InvalidationTarget, type QueueCounts, type QueueMisbehaviour } from "./queue.ts";
import type { Cached } from "./translation-cache.ts";
import { Translator } from "./translator.ts";

/** What a simulated VT-d unit can do, and the memory that it reads. */
export interface SimulatedVtdOptions extends VtdTraits {
  /** All memory that structures and tables can be in. */
  readonly memory: TableMemory;
  /** The machine's time: of time-outs and of page requests that wait. */
  readonly clock: Clock;
  /** After this long a device that was told to forget counts as not answering. 1 unless said. */
  readonly deviceTimeoutMs?: number;
  /**
   * With `cachingMode`: absent entries are in fact cached, which the specification permits and does not demand. On unless
   * said; the unit that QEMU emulates asks for the invalidations and caches none.
   */
  readonly cachesAbsent?: boolean;
}

/** An answer to a group of page requests, as the device gets it. */
export interface PageResponse {
  /** The device that it goes to: segment × 65536 + bus × 256 + device × 8 + function. */
  readonly requester: number;
  /** -1: without. */
  readonly pasid: number;
  /** The device's number for the group, 0 to 511. */
  readonly group: number;
  /** PCIe's: 0 success, 1 invalid, 15 failure. */
  readonly code: number;
}

/** What one turn of a polling loop takes. */
const POLL_MS = 0.001;

/**
 * A VT-d unit: registers on one side, device requests on the other. What it knows it reads from memory, and keeps until
 * an invalidation in its queue tells it to forget. VT-d specification, 3, 6, 7 and 11.
 */
export class SimulatedVtdUnit implements VtdRegisters {
  readonly capability: bigint;
  readonly extendedCapability: bigint;
  /** Times that software asked for a write-buffer flush. */
  writeBufferFlushes = 0;
  readonly #clock: Clock;
  readonly #translator: Translator;
  readonly #devices = new Map<number, DeviceTlb>();
  readonly #records: FaultRecords;
  readonly #queue: InvalidationEngine;
  readonly #pageRequests: PageRequestRing;
  #underWay: { readonly request: PageRequest; readonly dueMs: number }[] = [];
  #polledMs = 0;
  #status = 0;
  #rootAddress = 0n;

  /** As after power-on: it does not translate, and its queue is off. */
  constructor(options: SimulatedVtdOptions) {
    const { memory, clock, deviceTimeoutMs = 1 } = options;
    const { capability, extended } = capabilityWords(options);
    this.capability = capability;
    this.extendedCapability = extended;
    this.#clock = clock;
    this.#translator = new Translator(memory, options.cachingMode === true && options.cachesAbsent !== false);
    this.#records = new FaultRecords(options.faultRecords ?? 1);
    this.#pageRequests = new PageRequestRing(memory);
    this.#queue = new InvalidationEngine(memory, this.#forgetting(), () => this.#nowMs(), deviceTimeoutMs);
  }

  // What devices see.

  /**
   * Where an access of `requester` to `page` goes; -1, and a fault record, if it may not. A device with a TLB looks there
   * first. `pasid` -1: without.
   */
  translate(requester: number, page: IovaPage, access: "read" | "write", pasid = -1): PhysPage | -1 {
    this.#queue.work();
    const needed = access === "read" ? READ : WRITE;
    const tlb = this.#devices.get(requester);
    if (tlb) {
      const own = tlb.get(pasid, page) ?? this.#refill(tlb, requester, page, access, pasid);
      if (own && (own.prot & needed) !== 0) return this.#translated(requester, page, access, pasid, own);
    }
    const found = this.#find(requester, page, access, pasid);
    if (typeof found === "number") return this.#refuse(requester, page, access, pasid, found);
    if ((found.prot & needed) !== 0) return inside(found, page);
    return this.#refuse(requester, page, access, pasid, this.#translator.denial(access));
  }

  /** The device has a TLB of its own from now on. */
  addDeviceTlb(requester: number): DeviceTlb {
    const tlb = new DeviceTlb();
    this.#devices.set(requester, tlb);
    return tlb;
  }

  /**
   * A device asks for a page, which reaches the queue after `delayMs`. One that finds no room there, or comes from a device
   * that may not ask, is dropped; if it is the last of its group the unit answers it.
   */
  requestPage(request: PageRequest, delayMs = 0): void {
    this.#underWay.push({ request, dueMs: this.#nowMs() + delayMs });
    this.#deliver(this.#nowMs());
  }

  /** Called with each answer to a group of page requests. `code` is PCIe's: 0 success, 1 invalid, 15 failure. */
  onPageResponse?: (response: PageResponse) => void;

  // For those who look.

  /** What the queue did, and what goes wrong in it on request. */
  get counts(): QueueCounts {
    return this.#queue.counts;
  }

  /** Times that an invalidation left a table cached that memory does not lead to any more: an error of the software. */
  get staleTables(): number {
    return this.#translator.staleTables;
  }

  /** What goes wrong in its queue on request; may be set at any time. */
  get misbehaviour(): QueueMisbehaviour {
    return this.#queue.misbehaviour;
  }

  /** Translations in the IOTLB. */
  get cached(): number {
    return this.#translator.cached;
  }

  // What software sees: registers.

  writeGlobalCommand(bits: number): void {
    if (has(bits, GLOBAL.setRootTable)) this.#translator.setRoot(this.#rootAddress);
    if (has(bits, GLOBAL.writeBufferFlush)) this.writeBufferFlushes++;
    const root = has(bits, GLOBAL.setRootTable) || has(this.#status, GLOBAL.setRootTable) ? GLOBAL.setRootTable : 0;
    const kept = [GLOBAL.translation, GLOBAL.queuedInvalidation].filter((bit) => has(bits, bit));
    this.#status = kept.reduce((sum, bit) => sum + bit, root);
  }

  readGlobalStatus(): number {
    return this.#status;
  }

  writeRootTableAddress(value: bigint): void {
    this.#rootAddress = value;
  }

  writeQueueAddress(value: bigint): void {
    this.#queue.configure(value);
  }

  writeQueueTail(offset: number): void {
    if (has(this.#status, GLOBAL.queuedInvalidation)) this.#queue.moveTail(offset);
  }

  readQueueHead(): number {
    this.#queue.work();
    return this.#queue.head;
  }

  readQueueError(): bigint {
    return BigInt(this.#queue.silentDevice) << 32n;
  }

  readFaultStatus(): number {
    this.#queue.work();
    return (
      this.#queue.errors | this.#records.status | (this.#pageRequests.lostNews ? FAULT_STATUS.pageRequestOverflow : 0)
    );
  }

  clearFaultStatus(bits: number): void {
    if ((bits & FAULT_STATUS.overflow) !== 0) this.#records.clearOverflow();
    if ((bits & FAULT_STATUS.pageRequestOverflow) !== 0) this.#pageRequests.lostNews = false;
    this.#queue.clear(bits & (FAULT_STATUS.queueError | FAULT_STATUS.completionError | FAULT_STATUS.timeOut));
  }

  readFaultRecord(index: number, word: number): number {
    return this.#records.read(index, word);
  }

  clearFaultRecord(index: number): void {
    this.#records.clear(index);
  }

  writePageRequestAddress(value: bigint): void {
    this.#pageRequests.configure(value);
  }

  readPageRequestHead(): number {
    return this.#pageRequests.head;
  }

  writePageRequestHead(offset: number): void {
    this.#pageRequests.head = offset;
  }

  readPageRequestTail(): number {
    this.#deliver(this.#nowMs());
    return this.#pageRequests.tail;
  }

  readPageRequestStatus(): number {
    return this.#pageRequests.status;
  }

  clearPageRequestStatus(bits: number): void {
    this.#pageRequests.status &= ~bits;
  }

  relax(): void {
    this.#polledMs += POLL_MS;
    this.#queue.work();
  }

  // Within.

  /** Page requests that are due, in the order they were made, go into their queue. */
  #deliver(nowMs: number): void {
    const due = this.#underWay.filter(({ dueMs }) => dueMs <= nowMs);
    if (due.length === 0) return;
    this.#underWay = this.#underWay.filter(({ dueMs }) => dueMs > nowMs);
    for (const { request } of due) {
      const { requester, pasid, page, write, last, group } = request;
      const context = this.#translator.context(requester);
      const allowed = typeof context !== "number" && !("binding" in context) && context.pageRequests;
      if (!allowed) {
        const reason = typeof context === "number" ? context : REASON.pageRequestsDisabled;
        this.#records.record(requester, pasid, page, write ? "write" : "read", reason);
      }
      if (allowed && this.#pageRequests.push(request)) continue;
      if (last) this.onPageResponse?.({ requester, pasid, group, code: allowed ? RESPONSE_SUCCESS : RESPONSE_INVALID });
    }
  }

  #nowMs(): number {
    return this.#clock.nowMs() + this.#polledMs;
  }

  #find(requester: number, page: IovaPage, access: "read" | "write", pasid: number): Cached | number {
    if (has(this.#status, GLOBAL.translation)) return this.#translator.find(requester, page, access, pasid);
    return { page: page as number as PhysPage, prot: READ | WRITE, lg: 0 };
  }

  /** A device asks for a translation to keep. Nothing is recorded if there is none. */
  #refill(
    tlb: DeviceTlb,
    requester: number,
    page: IovaPage,
    access: "read" | "write",
    pasid: number,
  ): Cached | undefined {
    const context = this.#translator.context(requester);
    if (typeof context === "number" || !context.deviceTlb) return undefined;
    const found = this.#find(requester, page, access, pasid);
    if (typeof found === "number" || found.prot === 0) return undefined;
    tlb.set(pasid, page, found);
    return found;
  }

  /** A request that the device has translated itself: it passes if the device may do so at all. */
  #translated(requester: number, page: IovaPage, access: "read" | "write", pasid: number, own: Cached): PhysPage | -1 {
    const context = this.#translator.context(requester);
    if (typeof context === "number") return this.#refuse(requester, page, access, pasid, context);
    if (context.deviceTlb) return inside(own, page);
    const reason = this.#translator.isLegacy ? REASON.translationBlocked : REASON.deviceTlbDisabled;
    return this.#refuse(requester, page, access, pasid, reason);
  }

  #refuse(requester: number, page: IovaPage, access: "read" | "write", pasid: number, reason: number): -1 {
    if (!this.#translator.isSilent) this.#records.record(requester, pasid, page, access, reason);
    return -1;
  }

  /** What descriptors make it, and devices, forget. */
  #forgetting(): InvalidationTarget {
    return {
      context: (...what) => this.#translator.forgetContext(...what),
      pasidCache: (...what) => this.#translator.forgetPasids(...what),
      iotlb: (...what) => this.#translator.forgetIotlb(...what),
      pasidIotlb: (...what) => this.#translator.forgetPasidIotlb(...what),
      deviceTlb: (requester, pasid, page, order) =>
        this.#devices.get(requester)?.invalidate(pasid, page, page + 2 ** order) ?? true,
      pageResponse: (requester, pasid, code, group) => this.onPageResponse?.({ requester, pasid, code, group }),
      drainPageRequests: () => this.#deliver(Number.POSITIVE_INFINITY),
    };
  }
}

const RESPONSE_SUCCESS = 0; // after an overflow: the device looks again, and asks again if it must
const RESPONSE_INVALID = 1;
const has = (bits: number, bit: number): boolean => Math.floor(bits / bit) % 2 === 1; // bit 31 is no int32
const inside = (entry: Cached, page: IovaPage): PhysPage => (entry.page + (page % 2 ** entry.lg)) as PhysPage;
