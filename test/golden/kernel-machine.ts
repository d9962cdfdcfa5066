/**
 * The machine of the running kernel's recordings, rebuilt: memory, an IOMMU unit, bounce pool and peer devices, as the
 * first line of a file says, and one front door for each of its devices.
 */
import { type DmaAddr, type IovaPage, PhysAddr, type PhysPage } from "../../src/base/index.ts";
import { Dma, type DmaMachine } from "../../src/dma/index.ts";
import type { DmaDebug } from "../../src/dma-debug/index.ts";
import { SimulatedMemory, VirtualClock } from "../../src/hosts/simulated/index.ts";
import { SimulatedVtdUnit } from "../../src/hosts/simulated/units/vtd/index.ts";
import { DmaDomain, INTERRUPT_WINDOW, VtdUnit } from "../../src/iommu/index.ts";
import { vtdSecondStage, x86_64 } from "../../src/layouts/pagetable/index.ts";
import { requesterId } from "../../src/layouts/pci/index.ts";
import { P2pRouter } from "../../src/p2p/index.ts";
import { Arena } from "../../src/pagetable/index.ts";
import type { PageAllocator } from "../../src/platform/index.ts";
import { BouncePool } from "../../src/swiotlb/index.ts";
import type { Header, Line } from "./judge.ts";
import { KernelEvents } from "./kernel-events.ts";
import { type RecordedMachine, recordedMachine } from "./p2p-machine.ts";

/** Table memory that says when tables come and go. */
class RecordedArena extends Arena {
  readonly #events: KernelEvents;

  constructor(events: KernelEvents) {
    super({ basePage: (2 ** 35) as PhysPage });
    this.#events = events;
  }

  override allocate(order = 0): number {
    const frame = super.allocate(order);
    if (frame >= 0) this.#events.tableAllocated();
    return frame;
  }

  override release(frame: number, order = 0): void {
    super.release(frame, order);
    this.#events.tablesFreed(1);
  }
}

/** Gives out the pages that the kernel's page allocator gave: what the file says is fed in. */
export class RecordedPages implements PageAllocator {
  #runs: { page: number; pages: number }[] = [];

  feed(runs: readonly { page: number; pages: number }[]): void {
    this.#runs = runs.map((run) => ({ ...run }));
  }

  allocatePages(pages: number): PhysPage | undefined {
    const run = this.#runs[0];
    if (!run || run.pages < pages) return undefined;
    const page = run.page as PhysPage;
    run.page += pages;
    run.pages -= pages;
    if (run.pages === 0) this.#runs.shift();
    return page;
  }

  freePages(): void {}
}

interface Device {
  readonly name: string;
  readonly untrusted: boolean;
  readonly requester: number;
  dma: Dma;
  domain: DmaDomain | undefined;
  leaves: Map<number, string>;
}

/** The pool of the machine that bounces everything, where a file does not describe it. */
const FORCED_POOL = { start: "0x6c600000", slots: 32_768, areas: 1 };

/** What the host bridge of that machine decodes for itself: no device gets these addresses. Pages, inclusive. */
const BRIDGE_WINDOWS = [
  { first: 0x80000, last: 0xaffff },
  { first: 0xc0000, last: 0xfebff },
];

const MEMORY_END = 2 ** 31;

export class KernelMachine {
  readonly mode: string;
  readonly events: KernelEvents = new KernelEvents();
  readonly memory: SimulatedMemory = new SimulatedMemory();
  readonly clock: VirtualClock = new VirtualClock();
  readonly pages: RecordedPages = new RecordedPages();
  readonly pool: BouncePool | undefined;
  readonly peers: P2pRouter = new P2pRouter();
  readonly tree: RecordedMachine;
  readonly devices: Device[] = [];
  readonly arena: RecordedArena;
  readonly hardware: SimulatedVtdUnit | undefined;
  readonly unit: VtdUnit | undefined;
  readonly #machine: DmaMachine;
  /** The kernel was built with DMA debugging. */
  readonly #debug: DmaDebug | undefined;
  readonly #ats: boolean;

  constructor(header: Header, lines: readonly Line[], debug?: DmaDebug) {
    this.#debug = debug;
    this.mode = header["mode"] as string;
    this.tree = recordedMachine(header, lines);
    const pool = (header["pool"] ?? (this.mode === "force" && FORCED_POOL)) as typeof FORCED_POOL | false;
    if (pool)
      this.pool = new BouncePool({
        memory: this.memory,
        start: PhysAddr(Number(pool.start)),
        slots: pool.slots,
        areas: pool.areas,
        observer: this.events,
      });
    this.#machine = {
      memory: this.memory,
      pages: this.pages,
      peers: this.peers,
      ramEnd: PhysAddr(MEMORY_END),
      ...(this.pool && { pool: this.pool }),
    };
    this.arena = new RecordedArena(this.events);
    this.#ats = lines.some(({ events }) =>
      (events as string[][] | undefined)?.some(([name, qw0]) => name === "qi" && Number(BigInt(qw0!) & 0xfn) === 3),
    );
    if (["strict", "lazy", "cm", "fl", "untrusted"].includes(this.mode)) {
      const { arena: memory, clock } = this;
      const scalableMode = this.mode === "fl";
      this.hardware = new SimulatedVtdUnit({
        memory,
        clock,
        scalableMode,
        cachingMode: this.mode === "cm",
        deviceTlb: this.#ats,
      });
      this.events.recording = false;
      this.unit = new VtdUnit({
        registers: this.hardware,
        memory,
        clock,
        scalable: scalableMode,
        observer: this.events,
      });
      this.events.recording = true;
    }
  }

  addDevice(index: number, name: string, untrusted: boolean): void {
    const device: Device = {
      name,
      untrusted,
      requester: requesterId(name),
      dma: undefined as unknown as Dma,
      domain: undefined,
      leaves: new Map(),
    };
    this.devices[index] = device;
    device.dma = this.#front(index, undefined);
    device.dma.device.skipSync = false; // no mask was set yet
  }

  /** A fresh domain for a device. `domainId` is what the kernel's descriptors say. */
  enter(index: number, type: string, domainId: number): void {
    const device = this.devices[index]!;
    const before = device.dma;
    this.events.recording = false;
    let domain: DmaDomain | undefined;
    if (type !== "identity" && this.unit) {
      domain = new DmaDomain({
        layout: this.mode === "fl" ? x86_64() : vtdSecondStage(),
        unit: this.unit,
        clock: this.clock,
        mode: type === "DMA-FQ" ? "lazy" : "strict",
        domainId,
        reserved: [INTERRUPT_WINDOW, ...BRIDGE_WINDOWS],
        tableMemory: this.arena,
        observer: this.events,
      });
      this.unit.detach(device.requester);
      this.unit.attach(device.requester, domain.tables, {
        ...(this.#ats && { ats: { queueDepth: 0, stu: 0 } }),
      });
    }
    device.domain?.destroy();
    device.domain = domain;
    device.leaves = new Map();
    device.dma = this.#front(index, domain, before);
    this.events.recording = true;
    this.events.take();
  }

  #front(index: number, domain: DmaDomain | undefined, before?: Dma): Dma {
    const { name, untrusted } = this.devices[index]!;
    const limits = before?.device;
    const node = this.tree.devices[index];
    const dma = new Dma({
      name,
      untrusted,
      machine: this.#machine,
      observer: this.events,
      forceBounce: this.mode === "force",
      refusesMisuse: false,
      linuxCompatible: true,
      mask: 2 ** 32 - 1,
      segmentBoundaryMask: 2 ** 32 - 1,
      ...(limits && {
        mask: limits.mask,
        coherentMask: limits.coherentMask,
        busLimit: limits.busLimit,
        maxSegmentSize: limits.maxSegmentSize,
        segmentBoundaryMask: limits.segmentBoundaryMask,
        minAlignMask: limits.minAlignMask,
      }),
      ...(node && { node }),
      ...(domain && { domain }),
      ...(this.#debug && { debug: this.#debug }),
    });
    if (limits) dma.device.skipSync = limits.skipSync;
    return dma;
  }

  /** Leaves that appeared or went since the last time, as the files write them, and how many tables and leaves there are. */
  changes(index: number): { changed: [string, string, string, number][]; tables: number; leaves: number } {
    const device = this.devices[index]!;
    const { table } = device.domain!;
    const now = new Map<number, string>();
    let tables = 1;
    const granule = (level: number): number => 512 ** level;
    for (const { level, path, low, high, leaf } of table.entries()) {
      if (!leaf) {
        tables++;
        continue;
      }
      let page = 0;
      path.forEach((entry, depth) => {
        page += entry * granule(path.length - 1 - depth + level);
      });
      const entry = ((BigInt(high >>> 0) << 32n) | BigInt(low >>> 0)).toString(16);
      now.set(page, `0x${entry}|${12 + 9 * level}`);
    }
    const changed: [string, string, string, number][] = [];
    const note = (sign: string, page: number, text: string): void => {
      const [entry, lg] = text.split("|");
      changed.push([sign, `0x${(page * 4096).toString(16)}`, entry!, Number(lg)]);
    };
    for (const [page, text] of device.leaves) if (now.get(page) !== text) note("-", page, text);
    for (const [page, text] of now) if (device.leaves.get(page) !== text) note("+", page, text);
    device.leaves = now;
    return { changed, tables, leaves: now.size };
  }

  /** Where a DMA address leads, page by page, through the tables and not the IOTLB; undefined where it leads nowhere. */
  reach(index: number, address: number): PhysAddr | undefined {
    const { domain } = this.devices[index]!;
    if (!domain) return PhysAddr(address);
    const page = domain.table.lookup(Math.floor(address / 4096) as IovaPage);
    return page < 0 ? undefined : PhysAddr(page * 4096 + (address % 4096));
  }

  /** Moves bytes as the device would; the number of bytes that led nowhere. */
  transfer(index: number, address: DmaAddr, bytes: Uint8Array, way: "read" | "write"): number {
    let faults = 0;
    for (let at = 0; at < bytes.length; ) {
      const piece = Math.min(4096 - ((address + at) % 4096), bytes.length - at);
      const phys = this.reach(index, address + at);
      if (phys === undefined) faults += piece;
      else if (way === "read") this.memory.read(phys, bytes.subarray(at, at + piece));
      else this.memory.write(phys, bytes.subarray(at, at + piece));
      at += piece;
    }
    return faults;
  }
}
