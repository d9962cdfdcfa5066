/**
 * A test stand for the DMA API: one device on a simulated machine, reached by one of the ways that mapping knows, and a
 * picture of everything that a call could leave behind.
 *
 * Idea: the parts of the machine are wrapped by ledgers that only keep accounts: which address ranges live, which cache
 * lines belong to the device, which pages it can reach. {@link Stand.state} is all of it as one plain value, so that
 * "a failed call leaves nothing" is one comparison.
 */
import {
  Counters,
  type Direction,
  DmaAddr,
  GiB,
  type Observer,
  PAGE_SIZE,
  PhysAddr,
  PhysPage,
} from "../../src/base/index.ts";
import { ConfidentialMemory, Dma, type DmaOptions, type IovaRange } from "../../src/dma/index.ts";
import {
  type BridgeDescription,
  DmaEngine,
  SimulatedHost,
  type SimulatedMachine,
  type SimulatedPciDevice,
  SimulatedUnit,
} from "../../src/hosts/simulated/index.ts";
import { DmaDomain } from "../../src/iommu/index.ts";
import type { TableLayout } from "../../src/layouts/pagetable/index.ts";
import { Arena } from "../../src/pagetable/index.ts";
import type { CacheMaintenance, MemoryEncryption, PageAllocator } from "../../src/platform/index.ts";

export interface StandOptions extends Omit<DmaOptions, "domain" | "machine" | "counters" | "node"> {
  /** The IOMMU's format; without one the device goes direct. */
  readonly layout?: TableLayout | undefined;
  /** `strict` unless said. */
  readonly mode?: "strict" | "lazy";
  readonly cachingMode?: boolean;
  readonly confidential?: "refused" | "ciphertext";
  /** Slots of the bounce pool; 0: no pool. 2048 unless said. */
  readonly slots?: number;
  /** Frames that page tables may take. */
  readonly tableFrames?: number;
  readonly memoryBytes?: number;
  readonly bridges?: readonly BridgeDescription[];
  /** Last page of the device's address space. */
  readonly lastPage?: number;
}

/** 64 GiB: above the RAM, and within what every format can point to. */
const TABLE_MEMORY = (2 ** 24) as PhysPage;
const LINE = 64;

/** Which cache lines are the device's. */
export class CacheLedger implements CacheMaintenance {
  readonly #inner: CacheMaintenance | undefined;
  readonly #lines = new Map<number, number>();
  #pending = 0;

  constructor(inner: CacheMaintenance | undefined) {
    this.#inner = inner;
  }

  forDevice(phys: PhysAddr, length: number, direction: Direction): void {
    this.#each(phys, length, (line) => this.#lines.set(line, (this.#lines.get(line) ?? 0) + 1));
    this.#inner?.forDevice(phys, length, direction);
  }

  forCpu(phys: PhysAddr, length: number, direction: Direction): void {
    this.#each(phys, length, (line) => {
      const count = (this.#lines.get(line) ?? 0) - 1;
      if (count > 0) this.#lines.set(line, count);
      else this.#lines.delete(line);
    });
    this.#inner?.forCpu(phys, length, direction);
  }

  bypass(first: PhysPage, pages: number): void {
    this.#inner?.bypass(first, pages);
  }

  barrier(): void {
    this.#pending = 0;
    this.#inner?.barrier();
  }

  /** Lines of the device. */
  get lines(): number[] {
    return [...this.#lines.keys()].sort((a, b) => a - b);
  }

  /** Maintenance that no barrier has completed. */
  get pending(): number {
    return this.#pending;
  }

  #each(phys: number, length: number, visit: (line: number) => void): void {
    this.#pending++;
    for (let at = Math.floor(phys / LINE); at * LINE < phys + length; at++) visit(at);
  }
}

/** How often devices can reach each page. */
class ReachLedger extends ConfidentialMemory {
  readonly pages: Map<number, number> = new Map();

  /** Conversions until one fails on purpose: 1 is the next. 0: none. */
  failAt = 0;

  override convert(page: PhysPage, pages: number, to: "shared" | "private"): boolean {
    if (this.failAt > 0 && --this.failAt === 0) return false;
    return super.convert(page, pages, to);
  }

  override mapped(phys: PhysAddr, length: number): void {
    super.mapped(phys, length);
    this.#count(phys, length, 1);
  }

  override unmapped(phys: PhysAddr, length: number): void {
    super.unmapped(phys, length);
    this.#count(phys, length, -1);
  }

  #count(phys: number, length: number, by: number): void {
    for (let page = Math.floor(phys / PAGE_SIZE); page * PAGE_SIZE < phys + length; page++) {
      const count = (this.pages.get(page) ?? 0) + by;
      if (count !== 0) this.pages.set(page, count);
      else this.pages.delete(page);
    }
  }
}

/** Which ranges of the address space are taken, and which wait for a flush. */
class RangeLedger implements Observer {
  readonly live: Map<number, number> = new Map();
  readonly queued: Map<number, number> = new Map();
  allocations = 0;
  /** Invalidations, in order: [first byte, last byte]. */
  readonly invalidated: [number, number][] = [];
  readonly mapsSynced: [number, number][] = [];

  iovaAllocated(granules: number, _limit: number, first: number): void {
    if (first === 0) return;
    this.allocations++;
    this.live.set(first, granules);
  }

  iovaFreed(first: number): void {
    this.live.delete(first);
    this.queued.delete(first);
  }

  flushQueued(first: number, granules: number): void {
    this.live.delete(first);
    this.queued.set(first, granules);
  }

  iotlbSynced(start: number, last: number): void {
    this.invalidated.push([start, last]);
  }

  mapSynced(iova: number, length: number): void {
    this.mapsSynced.push([iova, length]);
  }
}

/** Pages of RAM that can be made to run out. */
export class FailingPages implements PageAllocator {
  readonly #inner: PageAllocator;
  /** Allocations until they begin to fail on purpose: 1 is the next. 0: none fails. */
  failFrom = 0;

  constructor(inner: PageAllocator) {
    this.#inner = inner;
  }

  allocatePages(pages: number, lastPage?: number): PhysPage | undefined {
    if (this.failFrom === 1) return undefined;
    if (this.failFrom > 1) this.failFrom--;
    return this.#inner.allocatePages(pages, lastPage);
  }

  freePages(page: PhysPage, pages: number): void {
    this.#inner.freePages(page, pages);
  }
}

export class Stand {
  readonly host: SimulatedHost;
  /** The hardware of {@link host}. */
  readonly machine: SimulatedMachine;
  readonly engine: DmaEngine;
  readonly device: SimulatedPciDevice;
  readonly unit: SimulatedUnit;
  readonly arena: Arena;
  readonly domain: DmaDomain | undefined;
  readonly dma: Dma;
  readonly counters: Counters = new Counters();
  readonly caches: CacheLedger;
  readonly reach: ReachLedger | undefined;
  readonly ranges: RangeLedger = new RangeLedger();
  readonly pages: FailingPages;
  /** Bytes of the smallest thing that can be mapped. */
  readonly granule: number;

  constructor(options: StandOptions = {}) {
    const { layout, mode = "strict", confidential, slots = 2048, tableFrames, cachingMode = false, ...rest } = options;
    const { memoryBytes = 4 * GiB, bridges, lastPage, ...device } = rest;
    const { counters } = this;
    this.host = new SimulatedHost({
      memoryBytes,
      coherent: options.coherent ?? true,
      counters,
      ...(slots > 0 && { pool: { slots } }),
      ...(confidential && { confidential }),
      ...(bridges && { bridges }),
    });
    const { machine } = this.host;
    this.machine = machine;
    this.engine = new DmaEngine();
    this.device = machine.plug("0.0", this.engine)[0]!;
    this.device.setBusMaster(true);
    this.device.node.trusted = options.tdi === "run";
    this.unit = new SimulatedUnit({ cachingMode });
    this.arena = new Arena({
      basePage: TABLE_MEMORY,
      ...(tableFrames !== undefined && { capacityFrames: tableFrames }),
    });
    if (layout) {
      this.domain = new DmaDomain({
        layout,
        mode,
        unit: this.unit,
        clock: machine.clock,
        tableMemory: this.arena,
        counters,
        observer: this.ranges,
        ...(lastPage !== undefined && { lastPage }),
      });
      machine.fabric.translator = this.unit;
      this.unit.attach(this.device.requester, this.domain.tables);
    }
    this.granule = this.domain?.granule ?? PAGE_SIZE;
    this.caches = new CacheLedger(machine.caches);
    this.reach = machine.encryption && new ReachLedger(machine.encryption as MemoryEncryption);
    this.pages = new FailingPages(machine.pages);
    const { memory, ramEnd } = machine;
    const { pool, peers } = this.host;
    this.dma = new Dma({
      ...device,
      ...(this.domain && { domain: this.domain }),
      node: this.device.node,
      counters,
      machine: {
        memory,
        peers,
        ramEnd,
        pages: this.pages,
        caches: this.caches,
        ...(pool && { pool }),
        ...(this.reach && { encryption: this.reach }),
      },
    });
  }

  /** Physical memory of `bytes`, which starts on a granule, and belongs to nobody else. Shared, if the guest is confidential. */
  block(bytes: number, shared = true): PhysAddr {
    const perGranule = this.granule / PAGE_SIZE;
    const pages = Math.ceil(bytes / this.granule) * perGranule;
    const page = this.machine.ram.allocatePages(pages + perGranule - 1)!;
    const first = (Math.ceil(page / perGranule) * perGranule) as PhysPage;
    if (shared) this.machine.encryption?.convert(first, pages, "shared");
    return PhysPage.start(first);
  }

  cpuWrite(phys: number, bytes: Uint8Array): void {
    this.machine.memory.write(PhysAddr(phys), bytes);
  }

  cpuRead(phys: number, length: number): Uint8Array {
    const into = new Uint8Array(length);
    this.machine.memory.read(PhysAddr(phys), into);
    return into;
  }

  /** What the device reads at `address`; undefined if it is refused. */
  deviceRead(address: number, length: number): Uint8Array | undefined {
    const into = new Uint8Array(length);
    return this.engine.read(DmaAddr(address), into) ? into : undefined;
  }

  /** False if the device was refused. */
  deviceWrite(address: number, bytes: Uint8Array): boolean {
    return this.engine.write(DmaAddr(address), bytes);
  }

  /** Can the device read one byte there? */
  reads(address: number): boolean {
    return this.deviceRead(address, 1) !== undefined;
  }

  /** Lazy mode: everything queued is flushed. */
  flush(): void {
    this.machine.clock.advance(1000);
  }

  reserve(length: number, physOffset = 0, capacity?: number): IovaRange {
    return this.dma.tryReserveIova({ length, physOffset, ...(capacity !== undefined && { capacity }) })!;
  }

  get leaves(): string[] {
    return [...(this.domain?.table.entries() ?? [])]
      .filter(({ leaf }) => leaf)
      .map(({ level, path, low, high }) => `${level}/${path}: ${low >>> 0} ${high >>> 0}`);
  }

  /** Everything that a call can leave behind, table pages apart. */
  get state(): Readonly<Record<string, unknown>> {
    const { machine, counters, ranges } = this;
    const { pool } = this.host;
    const { encryption, ram, clock } = machine;
    return {
      leaves: this.leaves,
      "ranges taken": [...ranges.live].sort(([a], [b]) => a - b),
      "ranges queued": [...ranges.queued].sort(([a], [b]) => a - b),
      "live ranges": counters.iovaAllocations - counters.iovaFrees,
      "slots used": pool?.used,
      "mappings that hold slots": this.dma.device.bounces,
      "slots with an owner": pool && this.#ownedSlots(),
      "cache lines of the device": this.caches.lines,
      "pages that the device reaches": [...(this.reach?.pages ?? [])].sort(([a], [b]) => a - b),
      "pages of RAM": ram.pagesInUse,
      "shared pages": encryption?.sharedPages,
      timers: ranges.queued.size === 0 ? 0 : clock.pending,
    };
  }

  /** Table pages in use. */
  get tablePages(): number {
    return this.domain?.tablePages ?? 0;
  }

  #ownedSlots(): number[] {
    const { pool } = this.host;
    if (!pool || pool.used === 0) return [];
    const owned: number[] = [];
    for (let slot = 0; slot < pool.slots; slot++) if (pool.slotState(slot).used) owned.push(slot);
    return owned;
  }
}
