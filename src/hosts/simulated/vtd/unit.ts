/**
 * A simulated VT-d unit: registers on one side, device requests on the other, and between them what it remembers.
 *
 * Idea: everything it knows it reads from memory by its own walk, from the root table on, and keeps until an invalidation
 * that it reads from its queue tells it to forget. Stale entries stay usable: only then can a missing invalidation show.
 * A refused request is a fault record, never an exception.
 * Not for: being called by the stack in any way but through its registers.
 * Specified by: VT-d specification, 3, 6, 7 and 11.
 */
import type { IovaPage, PhysPage } from "../../../base/index.ts";
import { READ, WRITE } from "../../../layouts/pagetable/index.ts";
import { type Clock, FAULT_STATUS, GLOBAL, type TableMemory, type VtdRegisters } from "../../../platform/index.ts";
import { capabilityWords, type VtdTraits } from "./capabilities.ts";
import { DeviceTlb } from "./device-tlb.ts";
import {
  type Binding,
  type LegacyContext,
  readLegacyContext,
  readPasid,
  readScalableContext,
  type ScalableContext,
} from "./entries.ts";
import { FaultRecords } from "./fault-records.ts";
import { type PageRequest, PageRequestRing } from "./page-request-ring.ts";
import { type Forgetting, InvalidationEngine, type QueueCounts, type QueueMisbehaviour } from "./queue.ts";
import { REASON } from "./reasons.ts";
import type { Cached } from "./translation-cache.ts";
import { Translations } from "./translations.ts";
import { PageWalker } from "./walk.ts";

export interface SimulatedVtdOptions extends VtdTraits {
  /** All memory that structures and tables can be in. */
  readonly memory: TableMemory;
  readonly clock: Clock;
  /** After this long a device that was told to forget counts as not answering. 1 unless said. */
  readonly deviceTimeoutMs?: number;
}

/** An answer to a group of page requests, as the device gets it. */
export interface PageResponse {
  readonly requester: number;
  /** -1: without. */
  readonly pasid: number;
  readonly group: number;
  readonly code: number;
}

/** What one turn of a polling loop takes. */
const POLL_MS = 0.001;

export class SimulatedVtdUnit implements VtdRegisters {
  readonly capability: bigint;
  readonly extendedCapability: bigint;
  /** Times that an invalidation left a table cached that memory does not lead to any more: an error of the software. */
  staleTables = 0;
  writeBufferFlushes = 0;
  readonly #memory: TableMemory;
  readonly #clock: Clock;
  readonly #traits: VtdTraits;
  readonly #walker: PageWalker;
  readonly #known = new Translations();
  readonly #devices = new Map<number, DeviceTlb>();
  readonly #records: FaultRecords;
  readonly #queue: InvalidationEngine;
  readonly #pageRequests: PageRequestRing;
  /** Of the request at hand. */
  #binding: Binding | undefined;
  #boundPasid = 0;
  #underWay: { readonly request: PageRequest; readonly dueMs: number }[] = [];
  #polledMs = 0;
  #status = 0;
  #rootAddress = 0n;
  #root = 0 as PhysPage;
  #mode = 0;

  constructor(options: SimulatedVtdOptions) {
    const { memory, clock, deviceTimeoutMs = 1 } = options;
    const { capability, extended } = capabilityWords(options);
    this.capability = capability;
    this.extendedCapability = extended;
    this.#memory = memory;
    this.#clock = clock;
    this.#traits = options;
    this.#walker = new PageWalker(memory, () => this.#mode === 0);
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
    return this.#refuse(requester, page, access, pasid, this.#walker.denied(this.#binding!, access));
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

  get misbehaviour(): QueueMisbehaviour {
    return this.#queue.misbehaviour;
  }

  /** Translations in the IOTLB. */
  get cached(): number {
    return this.#known.size;
  }

  // What software sees: registers.

  writeGlobalCommand(bits: number): void {
    if (has(bits, GLOBAL.setRootTable)) {
      this.#root = Number(this.#rootAddress >> 12n) as PhysPage;
      this.#mode = Number((this.#rootAddress >> 10n) & 3n);
    }
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
      const context = this.#context(requester);
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

  /** What covers `page`: from the IOTLB, or by a walk. Or the reason why nothing does. */
  #find(requester: number, page: IovaPage, access: "read" | "write", pasid: number): Cached | number {
    if (!has(this.#status, GLOBAL.translation)) return { page: page as number as PhysPage, prot: READ | WRITE, lg: 0 };
    const binding = this.#bind(requester, pasid);
    if (typeof binding === "number") return binding;
    const { first, second } = binding;
    if (!first && !second) return { page: page as number as PhysPage, prot: READ | WRITE, lg: 0 };
    const space = this.#known.space(binding, this.#boundPasid);
    const known = space.leaves.get(page);
    if (known) return known;
    const found = this.#walker.walk(binding, page, access, space.tables);
    if (typeof found !== "number") space.leaves.set(page, found);
    else if (this.#traits.cachingMode && !first) space.leaves.set(page, ABSENT);
    return found;
  }

  /** What the requests of a device and PASID are translated by; remembered. */
  #bind(requester: number, pasid: number): Binding | number {
    this.#binding = undefined;
    const context = this.#context(requester);
    if (typeof context === "number") return context;
    if ("binding" in context) {
      this.#binding = context.binding;
      this.#boundPasid = 0;
      return pasid >= 0 ? REASON.pasidInLegacyMode : context.binding;
    }
    if (pasid >= 0 && !context.pasidEnabled) return REASON.pasidDisabled;
    this.#boundPasid = pasid < 0 ? context.requestPasid : pasid;
    const key = requester * 2 ** 20 + this.#boundPasid;
    let found = this.#known.pasids.get(key);
    if (found === undefined) {
      found = readPasid(this.#memory, context, this.#boundPasid);
      if (typeof found !== "number" || this.#traits.cachingMode) this.#known.pasids.set(key, found);
    }
    if (typeof found !== "number") this.#binding = found;
    return found;
  }

  #context(requester: number): LegacyContext | ScalableContext | number {
    const known = this.#known.contexts.get(requester);
    if (known !== undefined) return known;
    const read = this.#mode === 0 ? readLegacyContext : readScalableContext;
    const found = read(this.#memory, this.#root, requester);
    if (typeof found !== "number" || this.#traits.cachingMode) this.#known.contexts.set(requester, found);
    return found;
  }

  /** A device asks for a translation to keep. Nothing is recorded if there is none. */
  #refill(
    tlb: DeviceTlb,
    requester: number,
    page: IovaPage,
    access: "read" | "write",
    pasid: number,
  ): Cached | undefined {
    const context = this.#context(requester);
    if (typeof context === "number" || !context.deviceTlb) return undefined;
    const found = this.#find(requester, page, access, pasid);
    if (typeof found === "number" || found.prot === 0) return undefined;
    tlb.set(pasid, page, found);
    return found;
  }

  /** A request that the device has translated itself: it passes if the device may do so at all. */
  #translated(requester: number, page: IovaPage, access: "read" | "write", pasid: number, own: Cached): PhysPage | -1 {
    const context = this.#context(requester);
    if (typeof context === "number") return this.#refuse(requester, page, access, pasid, context);
    if (context.deviceTlb) return inside(own, page);
    const reason = this.#mode === 0 ? REASON.translationBlocked : REASON.deviceTlbDisabled;
    return this.#refuse(requester, page, access, pasid, reason);
  }

  #refuse(requester: number, page: IovaPage, access: "read" | "write", pasid: number, reason: number): -1 {
    if (!this.#binding?.silent) this.#records.record(requester, pasid, page, access, reason);
    return -1;
  }

  /** What descriptors make it forget. */
  #forgetting(): Forgetting {
    const known = this.#known;
    const blockEnd = (page: number, order: number): [number, number] => {
      const size = 2 ** order;
      const start = Math.floor(page / size) * size;
      return [start, start + size];
    };
    return {
      context: (granularity, domainId, requester, functionMask) => {
        for (const [id, entry] of known.contexts) {
          const isDevice = id >> functionMask === requester >> functionMask;
          const isDomain = typeof entry === "number" ? domainId === 0 : isOfDomain(entry, domainId);
          if (granularity === 1 || (isDomain && (granularity === 2 || isDevice))) known.contexts.delete(id);
        }
      },
      pasidCache: (granularity, domainId, pasid) => {
        for (const [key, entry] of known.pasids) {
          const isDomain = typeof entry === "number" || entry.domainId === domainId;
          const isPasid = key % 2 ** 20 === pasid;
          if (granularity === 3 || (isDomain && (granularity === 0 || isPasid))) known.pasids.delete(key);
        }
      },
      iotlb: (granularity, domainId, page, order, leafOnly) => {
        if (granularity === 1) known.forgetAll();
        else if (granularity === 2) known.forgetDomain(domainId);
        else {
          const [start, end] = blockEnd(page, order);
          this.staleTables += known.forgetSecondStage(this.#walker, domainId, start, end, leafOnly);
        }
      },
      pasidIotlb: (granularity, domainId, pasid, page, order, leafOnly) => {
        if (granularity === 2) known.forgetPasid(domainId, pasid);
        else {
          const [start, end] = blockEnd(page, order);
          this.staleTables += known.forgetFirstStage(this.#walker, domainId, pasid, start, end, leafOnly);
        }
      },
      deviceTlb: (requester, pasid, page, order) => {
        const [start, end] = blockEnd(page, order);
        return this.#devices.get(requester)?.invalidate(pasid, start, end) ?? true;
      },
      pageResponse: (requester, pasid, code, group) => this.onPageResponse?.({ requester, pasid, code, group }),
      drainPageRequests: () => this.#deliver(Number.POSITIVE_INFINITY),
    };
  }
}

const ABSENT: Cached = { page: 0 as PhysPage, prot: 0, lg: 0 };
const RESPONSE_SUCCESS = 0; // after an overflow: the device looks again, and asks again if it must
const RESPONSE_INVALID = 1;
const has = (bits: number, bit: number): boolean => Math.floor(bits / bit) % 2 === 1;
const inside = (entry: Cached, page: IovaPage): PhysPage => (entry.page + (page % 2 ** entry.lg)) as PhysPage;

/** Context entries of scalable mode belong to no domain. */
const isOfDomain = (entry: LegacyContext | ScalableContext, domainId: number): boolean =>
  !("binding" in entry) || entry.binding.domainId === domainId;
