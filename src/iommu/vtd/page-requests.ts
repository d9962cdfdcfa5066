/**
 * Page requests: devices that ask for pages they cannot reach yet, and the answers.
 *
 * Idea: the unit puts requests into a queue in memory; they are gathered into groups, and each group goes to the handler
 * of its device and PASID, which answers once, now or later. A group ends with the request that says so. What nobody can
 * handle is answered at once, so that no device waits for ever.
 * Promises: nothing throws for what a device sends; every group that ended is answered exactly once; after
 * {@link PageRequestQueue.drain} no request of that device and PASID is under way or will be answered late.
 * Specified by: VT-d specification, 7.4 to 7.9; PCIe 6.0, 10.4; behaviour of Linux 7.2 (drivers/iommu/intel/prq.c,
 * drivers/iommu/io-pgfault.c), which writes the answer FAILURE as 2 where the bus says 15: here it is translated.
 */
import { type IovaPage, PAGE_SIZE, type PhysPage } from "../../base/index.ts";
import { PAGE_RESPONSE, writePageGroupResponse } from "../../layouts/invalidation/index.ts";
import { PAGE_REQUEST_STATUS } from "../../layouts/vtd/index.ts";
import type { Arena } from "../../pagetable/index.ts";
import type { VtdRegisters } from "../../platform/index.ts";
import { noMemory } from "./errors.ts";
import type { InvalidationQueue } from "./invalidation-queue.ts";

/** One request, as it was read. `pasid` is undefined for requests without. */
export interface PageRequest {
  readonly requester: number;
  readonly pasid: number | undefined;
  readonly page: IovaPage;
  readonly read: boolean;
  readonly write: boolean;
  readonly execute: boolean;
  readonly privileged: boolean;
}

export type PageResponseCode = keyof typeof PAGE_RESPONSE;

/** Requests that the device wants answered together. */
export interface PageRequestGroup {
  readonly requester: number;
  readonly pasid: number | undefined;
  /** The device's number for the group, 0 to 511. */
  readonly index: number;
  readonly requests: readonly PageRequest[];
  /** Answers the device. Only the first answer counts; after a drain none does. */
  respond(code: PageResponseCode): void;
}

/** Makes the pages reachable, or not, and answers; may take its time. */
export type PageRequestHandler = (group: PageRequestGroup) => void;

export interface PageRequestQueueOptions {
  readonly registers: VtdRegisters;
  readonly memory: Arena;
  readonly queue: InvalidationQueue;
  /** Is this device attached, with page requests? */
  readonly isKnown: (requester: number) => boolean;
  /** Pages of the half of the address space that is canonical: 2^35 with four levels of tables, 2^44 with five. */
  readonly halfPages: number;
}

/** The queue is 64 KiB of 32-byte entries. */
const QUEUE_ORDER = 4;
const ENTRY_BYTES = 32;
const QUEUE_BYTES = PAGE_SIZE * 2 ** QUEUE_ORDER;

interface Entry {
  readonly request: PageRequest;
  readonly last: boolean;
  readonly index: number;
}

const keyOf = (requester: number, pasid: number | undefined): number => requester * 2 ** 21 + (pasid ?? -1) + 1;

export class PageRequestQueue {
  /** Groups answered, by code; requests that were not well-formed; times that requests were lost because of no room. */
  readonly answered: Record<PageResponseCode, number> = { success: 0, invalid: 0, failure: 0 };
  malformed = 0;
  overflows = 0;
  readonly #options: PageRequestQueueOptions;
  readonly #frame: number;
  readonly #handlers = new Map<number, PageRequestHandler>();
  /** By device: requests whose group has not ended. */
  readonly #partial = new Map<number, { readonly index: number; readonly request: PageRequest }[]>();
  /** Groups that a handler has and did not answer yet. */
  readonly #open = new Set<PageRequestGroup>();

  /** @throws DmaError ERR_DMA_VTD_MEMORY (ENOMEM) */
  constructor(options: PageRequestQueueOptions) {
    const { registers, memory } = options;
    this.#options = options;
    this.#frame = memory.allocate(QUEUE_ORDER);
    if (this.#frame < 0) throw noMemory("the page-request queue");
    registers.writePageRequestHead(0);
    registers.writePageRequestAddress((BigInt(memory.basePage + this.#frame) << 12n) | BigInt(QUEUE_ORDER));
  }

  /** Requests that wait for the last one of their group. */
  get partial(): number {
    let count = 0;
    for (const requests of this.#partial.values()) count += requests.length;
    return count;
  }

  /** From now on `handler` gets the groups of this device and PASID; undefined: nobody does. */
  setHandler(requester: number, pasid: number | undefined, handler: PageRequestHandler | undefined): void {
    const key = keyOf(requester, pasid);
    if (handler) this.#handlers.set(key, handler);
    else this.#handlers.delete(key);
  }

  /** Takes every request out of the queue: how many. To be called at the unit's page-request interrupt, or at any time. */
  process(): number {
    const { registers } = this.#options;
    registers.clearPageRequestStatus(PAGE_REQUEST_STATUS.pending);
    let count = 0;
    for (let tail = registers.readPageRequestTail(); ; count++) {
      const head = registers.readPageRequestHead();
      if (head === tail) break;
      const entry = this.#read(head);
      registers.writePageRequestHead((head + ENTRY_BYTES) % QUEUE_BYTES);
      this.#take(entry);
      tail = registers.readPageRequestTail();
    }
    if ((registers.readPageRequestStatus() & PAGE_REQUEST_STATUS.overflow) !== 0) {
      this.overflows++; // the lost ones may have been part of any group
      this.#partial.clear();
      registers.clearPageRequestStatus(PAGE_REQUEST_STATUS.overflow);
    }
    return count;
  }

  /**
   * The device has stopped, its entry is gone and its caches have forgotten: what it asked with this PASID before is taken
   * out and answered. `forget` stages the invalidations that push its requests out of the unit.
   */
  drain(requester: number, pasid: number | undefined, forget: () => void): void {
    const { registers, queue } = this.#options;
    this.setHandler(requester, pasid, undefined); // whatever still comes is answered invalid
    do {
      this.process();
      forget();
      queue.submit(true);
    } while ((registers.readPageRequestStatus() & PAGE_REQUEST_STATUS.overflow) !== 0 && queue.broken === undefined);
    this.process();
    const waiting = this.#partial.get(requester)?.filter(({ request }) => request.pasid !== pasid);
    if (waiting) this.#partial.set(requester, waiting);
    for (const group of this.#open)
      if (group.requester === requester && group.pasid === pasid) group.respond("invalid");
  }

  destroy(): void {
    const { registers, memory } = this.#options;
    for (const group of this.#open) group.respond("invalid");
    registers.writePageRequestAddress(0n);
    memory.release(this.#frame, QUEUE_ORDER);
  }

  /** One entry of the queue. */
  #read(offset: number): Entry {
    const { memory } = this.#options;
    const table = (memory.basePage + this.#frame + Math.floor(offset / PAGE_SIZE)) as PhysPage;
    const at = (offset % PAGE_SIZE) / 8;
    const [low, high] = [memory.low(table, at), memory.high(table, at)];
    const [ask, top] = [memory.low(table, at + 1), memory.high(table, at + 1)];
    const request: PageRequest = {
      requester: low >>> 16,
      pasid: (low & 0x100) === 0 ? undefined : high & 0xfffff,
      page: ((top >>> 0) * 2 ** 20 + (ask >>> 12)) as IovaPage,
      read: (ask & 1) !== 0,
      write: (ask & 2) !== 0,
      execute: (high & 0x10_0000) !== 0,
      privileged: (high & 0x20_0000) !== 0,
    };
    return { request, last: (ask & 4) !== 0, index: (ask >>> 3) & 0x1ff };
  }

  #take({ request, last, index }: Entry): void {
    const { halfPages, isKnown } = this.#options;
    const { requester, pasid, page, read, write, execute, privileged } = request;
    if (!read && !write && last) return; // a stop marker: the device says that it asks no more
    const canonical = page < halfPages || page >= 2 ** 52 - halfPages;
    if (!canonical || (privileged && (read || write)) || (execute && read) || !isKnown(requester)) {
      this.malformed++;
      if (last) this.#answer(requester, pasid, index, "invalid");
      return;
    }
    const parked = this.#partial.get(requester) ?? [];
    if (!last) {
      parked.push({ index, request });
      this.#partial.set(requester, parked);
      return;
    }
    const earlier = parked.filter((other) => other.index === index);
    if (earlier.length > 0)
      this.#partial.set(
        requester,
        parked.filter((other) => other.index !== index),
      );
    this.#handOver([...earlier.map((other) => other.request), request], index);
  }

  /** A group is whole. */
  #handOver(requests: readonly PageRequest[], index: number): void {
    const { requester, pasid } = requests[0]!;
    const handler = this.#handlers.get(keyOf(requester, pasid));
    if (!handler) {
      this.#answer(requester, pasid, index, "invalid");
      return;
    }
    const group: PageRequestGroup = {
      requester,
      pasid,
      index,
      requests,
      respond: (code) => {
        if (this.#open.delete(group)) this.#answer(requester, pasid, index, code);
      },
    };
    this.#open.add(group);
    try {
      handler(group);
    } catch (error) {
      group.respond("failure"); // the device must not wait for a handler that is gone
      throw error;
    }
  }

  #answer(requester: number, pasid: number | undefined, index: number, code: PageResponseCode): void {
    const { queue } = this.#options;
    this.answered[code]++;
    const wire = PAGE_RESPONSE[code];
    writePageGroupResponse(queue.words, queue.at, requester, index, wire, pasid !== undefined, pasid ?? 0);
    queue.push();
    queue.submit(false);
  }
}
