/**
 * A confidential guest (TVM) of a simulated machine: its memory, its own tables for devices inside its trust, and its CPU's
 * view of everything.
 *
 * Idea: pages come from the machine's RAM and are private when the guest gets them; what it shares it converts, which nothing
 * may be mapped for. Devices outside the trust are fed from a bounce pool in shared memory. The guest's page book counts what
 * devices can reach, so that a conversion under a device is refused.
 * Promises: {@link Tvm.destroy} gives every page back, scrubbed.
 */
import { Counters, PAGE_SIZE, type PhysAddr, PhysPage, pagesOf } from "../../../base/index.ts";
import { ConfidentialMemory } from "../../../dma/index.ts";
import { P2pRouter } from "../../../p2p/index.ts";
import type {
  DeviceEvidence,
  HostBuffer,
  HostMemory,
  MemoryEncryption,
  PageAllocator,
} from "../../../platform/index.ts";
import { BOUNCE_SLOT, BouncePool } from "../../../swiotlb/index.ts";
import { outOfMemory } from "../errors.ts";
import type { SimulatedMachine } from "../machine.ts";
import { SimulatedUnit } from "../units/tables-unit.ts";
import { SHARED_BIT } from "./gate.ts";
import type { GuestNumber, GuestPages } from "./guest-pages.ts";
import type { SecureFunction } from "./secure-device.ts";

/** What a guest is started with. */
export interface TvmOptions {
  /** Slots of the bounce pool, 2 KiB each. Default 2048. */
  readonly bounceSlots?: number;
}

/** What a host does with evidence on its way to a guest. */
type EvidenceCarrier = (fn: SecureFunction, evidence: DeviceEvidence) => DeviceEvidence;

/** A confidential guest: its memory, its pool, its unit. */
export class Tvm {
  /** 1 or more: the owner of its pages. */
  readonly number: GuestNumber;
  /** Private memory, as buffers. */
  readonly memory: HostMemory;
  /** Private memory, as pages. */
  readonly pages: PageAllocator;
  /** The guest's book: what is private, and what devices can reach. */
  readonly encryption: ConfidentialMemory;
  /** In shared memory. */
  readonly pool: BouncePool;
  /** Of the pool: bytes that were copied. */
  readonly counters: Counters = new Counters();
  /** Memory of devices that others of the guest may use. */
  readonly peers: P2pRouter = new P2pRouter();
  /** Translates requests inside the trust, by tables of the guest. */
  readonly unit: SimulatedUnit = new SimulatedUnit();
  /** A host that changes evidence. */
  evidenceCarrier: EvidenceCarrier | undefined;
  readonly #machine: SimulatedMachine;
  readonly #pages: GuestPages;
  readonly #poolPage: PhysPage;
  readonly #poolPages: number;

  /** @throws DmaError ERR_DMA_SIM_MEMORY (ENOMEM) if there is no room for its pool */
  constructor(machine: SimulatedMachine, pages: GuestPages, number: GuestNumber, options: TvmOptions = {}) {
    const { bounceSlots = 2048 } = options;
    this.#machine = machine;
    this.#pages = pages;
    this.number = number;
    this.pages = {
      allocatePages: (count, lastPage) => this.#take(count, lastPage),
      freePages: (page, count) => this.#free(page, count),
    };
    this.memory = { allocate: (length) => this.#allocate(length) };
    const hardware: MemoryEncryption = {
      sharedBit: SHARED_BIT,
      isPrivate: (page) => this.isPrivate(page),
      convert: (page, count, to) => pages.convert(number, page, count, to),
    };
    this.encryption = new ConfidentialMemory(hardware);
    this.#poolPages = pagesOf(bounceSlots * BOUNCE_SLOT);
    const pool = this.#take(this.#poolPages);
    if (pool === undefined || !pages.convert(number, pool, this.#poolPages, "shared"))
      throw outOfMemory(this.#poolPages * PAGE_SIZE, machine.ram.free, machine.ram.largestRun);
    this.#poolPage = pool;
    const { counters } = this;
    this.pool = new BouncePool({ memory: machine.memory, start: PhysPage.start(pool), slots: bounceSlots, counters });
  }

  /** A page is private to this guest. What is another's is not its to use, and counts as private too. */
  isPrivate(page: PhysPage): boolean {
    const { owner, isPrivate } = this.#pages.at(page);
    return isPrivate || (owner !== this.number && owner !== 0);
  }

  /** Bytes as the guest's CPU reads and writes them: all of its own memory, and what is shared. */
  read(phys: PhysAddr, into: Uint8Array): void {
    this.#machine.memory.read(phys, into);
  }

  /** As {@link Tvm.read}, the other way. */
  write(phys: PhysAddr, from: Uint8Array): void {
    this.#machine.memory.write(phys, from);
  }

  /** Evidence comes to the guest through the host. */
  deliver(fn: SecureFunction, evidence: DeviceEvidence): DeviceEvidence {
    return this.evidenceCarrier?.(fn, evidence) ?? evidence;
  }

  /** Gives everything back: the pool, and what else is the guest's. */
  destroy(): void {
    this.#free(this.#poolPage, this.#poolPages);
    for (const [page, { owner }] of [...this.#pages.entries()])
      if (owner === this.number) this.#pages.takeBack(page, 1);
  }

  #take(count: number, lastPage?: number): PhysPage | undefined {
    const page = this.#machine.ram.allocatePages(count, lastPage);
    if (page === undefined) return undefined;
    this.#pages.give(this.number, page, count);
    this.#pages.accept(this.number, page, count);
    return page;
  }

  #free(page: PhysPage, count: number): void {
    this.#pages.takeBack(page, count);
    this.#machine.ram.freePages(page, count);
  }

  #allocate(length: number): HostBuffer {
    const buffer = this.#machine.ram.allocate(length);
    const page = PhysPage.of(buffer.phys);
    const count = pagesOf(length);
    this.#pages.give(this.number, page, count);
    this.#pages.accept(this.number, page, count);
    let isHeld = true;
    return {
      phys: buffer.phys,
      length,
      bytes: buffer.bytes,
      free: () => {
        if (isHeld) this.#pages.takeBack(page, count);
        isHeld = false;
        buffer.free();
      },
    };
  }
}
