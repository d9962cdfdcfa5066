/**
 * VT-d's page-request queue: requests as the unit puts them into memory, and answers as descriptors.
 *
 * Idea: entries are read and judged here; gathering them into groups and who handles those is the same for every unit
 * (`iommu/page-request-groups.ts`).
 * Promises: nothing throws for what a device sends; every group that ended is answered exactly once; after
 * {@link PageRequestQueue.drain} no request of that device and PASID is under way or will be answered late.
 * Specified by: VT-d specification, 7.4 to 7.9; PCIe 6.0, 10.4; behaviour of Linux 7.2 (drivers/iommu/intel/prq.c,
 * drivers/iommu/io-pgfault.c), which writes the answer FAILURE as 2 where the bus says 15: here it is translated.
 */
import { type IovaPage, PAGE_SIZE, type PhysPage } from "../../base/index.ts";
import { PAGE_RESPONSE, writePageGroupResponse } from "../../layouts/invalidation/index.ts";
import { PAGE_REQUEST_STATUS } from "../../layouts/vtd/index.ts";
import type { Arena } from "../../pagetable/index.ts";
import type {
  PageRequest,
  PageRequestHandler,
  PageRequests,
  PageResponseCode,
  VtdRegisters,
} from "../../platform/index.ts";
import { PageRequestGroups } from "../page-request-groups.ts";
import { noMemory } from "./errors.ts";
import type { InvalidationQueue } from "./invalidation-queue.ts";

interface PageRequestQueueOptions {
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

/** The page-request queue of one unit. */
export class PageRequestQueue implements PageRequests {
  /** Groups answered, by code; requests that were not well-formed; times that requests were lost because of no room. */
  readonly answered: Record<PageResponseCode, number> = { success: 0, invalid: 0, failure: 0 };
  malformed = 0;
  overflows = 0;
  readonly #options: PageRequestQueueOptions;
  readonly #frame: number;
  readonly #groups = new PageRequestGroups((requester, pasid, index, code) =>
    this.#answer(requester, pasid, index, code),
  );

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
    return this.#groups.partial;
  }

  /** From now on `handler` gets the groups of this device and PASID; undefined: nobody does. */
  setHandler(requester: number, pasid: number | undefined, handler: PageRequestHandler | undefined): void {
    this.#groups.setHandler(requester, pasid, handler);
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
      this.#groups.forgetPartial();
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
    this.#groups.drop(requester, pasid);
  }

  destroy(): void {
    const { registers, memory } = this.#options;
    this.#groups.destroy();
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
    this.#groups.take(request, index, last);
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
