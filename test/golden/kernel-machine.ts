/**
 * The machine of the running kernel's recordings, rebuilt: memory, an IOMMU unit, bounce pool and peer devices, as the
 * first line of a file says, and one front door for each of its devices.
 */
import { type DmaAddr, type IovaPage, PhysAddr } from "../../src/base/index.ts";
import { Dma, type DmaMachine } from "../../src/dma/index.ts";
import type { DmaDebug } from "../../src/dma-debug/index.ts";
import { SimulatedMemory, VirtualClock } from "../../src/hosts/simulated/index.ts";
import { SimulatedVirtioIommu } from "../../src/hosts/simulated/units/virtio/index.ts";
import { SimulatedVtdUnit } from "../../src/hosts/simulated/units/vtd/index.ts";
import { DmaDomain, INTERRUPT_WINDOW, VirtioDmaDomain, VirtioIommuUnit, VtdUnit } from "../../src/iommu/index.ts";
import { vtdSecondStage, x86_64 } from "../../src/layouts/pagetable/index.ts";
import { requesterId, requesterName } from "../../src/layouts/pci/index.ts";
import { P2pRouter } from "../../src/p2p/index.ts";
import { BouncePool } from "../../src/swiotlb/index.ts";
import { type Header, known, type Line, NotJudged } from "./judge.ts";
import { hex, KernelEvents } from "./kernel-events.ts";
import { type RecordedTree, recordedTree } from "./p2p-machine.ts";
import { RecordedArena, RecordedPages } from "./recorded-memory.ts";

/** What a mode says of the machine: its IOMMU, how that is used, and whether every mapping is bounced. */
interface Mode {
  readonly vtd?: { readonly scalableMode?: boolean; readonly cachingMode?: boolean };
  readonly virtio?: boolean;
  readonly forceBounce?: boolean;
  /** There is an IOMMU, and it leaves addresses as they are. */
  readonly identity?: boolean;
}

const MODES: Readonly<Record<string, Mode>> = {
  strict: { vtd: {} },
  lazy: { vtd: {} },
  untrusted: { vtd: {} },
  cm: { vtd: { cachingMode: true } },
  fl: { vtd: { scalableMode: true } },
  virtio: { virtio: true },
  "virtio-lazy": { virtio: true },
  pt: { identity: true },
  soft: {},
  none: {},
  force: { forceBounce: true },
};

/** Types of domain, as a file asks for them. */
const DOMAINS: Readonly<Record<string, "strict" | "lazy" | "identity">> = {
  identity: "identity",
  DMA: "strict",
  "DMA-FQ": "lazy",
};

interface Device {
  readonly name: string;
  readonly untrusted: boolean;
  readonly requester: number;
  dma: Dma;
  domain: DmaDomain | VirtioDmaDomain | undefined;
  /** There is an IOMMU, and the device's domain leaves addresses as they are. */
  isIdentity: boolean;
  leaves: Map<number, string>;
}

/** The pool of the machine that bounces everything, where a file does not describe it. */
const FORCED_POOL = { start: "0x6c600000", slots: 32_768, areas: 1 };

/** What the host bridge of that machine decodes for itself: no device gets these addresses. Pages, inclusive. */
const BRIDGE_WINDOWS = [
  { first: 0x80000, last: 0xaffff },
  { first: 0xc0000, last: 0xfebff },
];

/** The machine of all these recordings; of another one it is not known where its memory ends and what its bridge decodes. */
const MACHINE = /1 processor, 2 GiB/;
const MEMORY_END = 2 ** 31;

export class KernelMachine {
  readonly mode: Mode;
  readonly events: KernelEvents = new KernelEvents();
  readonly memory: SimulatedMemory = new SimulatedMemory();
  readonly clock: VirtualClock = new VirtualClock();
  readonly pages: RecordedPages = new RecordedPages();
  readonly pool: BouncePool | undefined;
  readonly peers: P2pRouter = new P2pRouter();
  readonly tree: RecordedTree;
  readonly devices: Device[] = [];
  readonly arena: RecordedArena;
  readonly hardware: SimulatedVtdUnit | undefined;
  readonly unit: VtdUnit | undefined;
  readonly virtio: { readonly hardware: SimulatedVirtioIommu; readonly unit: VirtioIommuUnit } | undefined;
  readonly #machine: DmaMachine;
  /** The kernel was built with DMA debugging. */
  readonly #debug: DmaDebug | undefined;
  readonly #ats: boolean;
  readonly #buffers = new Map<number, Uint8Array>();

  constructor(header: Header, lines: readonly Line[], debug?: DmaDebug) {
    this.#debug = debug;
    this.mode = known("the mode", MODES, header["mode"]);
    if (!MACHINE.test(String(header["machine"])))
      throw new NotJudged(`a machine of another kind: ${header["machine"]}`);
    this.tree = recordedTree(header, lines);
    const pool = (header["pool"] ?? (this.mode.forceBounce && FORCED_POOL)) as typeof FORCED_POOL | undefined | false;
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
      ramEnd: PhysAddr((header["memoryEnd"] as number | undefined) ?? MEMORY_END),
      ...(this.pool && { pool: this.pool }),
    };
    this.arena = new RecordedArena(this.events);
    this.#ats = lines.some(({ events }) =>
      (events as string[][] | undefined)?.some(([name, qw0]) => name === "qi" && Number(BigInt(qw0!) & 0xfn) === 3),
    );
    const { vtd } = this.mode;
    if (vtd) {
      const { arena: memory, clock } = this;
      this.hardware = new SimulatedVtdUnit({
        memory,
        clock,
        ...vtd,
        cachesAbsent: false, // as the emulated one
        deviceTlb: this.#ats,
      });
      this.events.recording = false;
      this.unit = new VtdUnit({
        registers: this.hardware,
        memory,
        clock,
        scalable: vtd.scalableMode === true,
        observer: this.events,
      });
      this.events.recording = true;
    } else if (this.mode.virtio) {
      const hardware = new SimulatedVirtioIommu({ inputBits: 39 }); // as the emulator gives it to such a machine
      this.virtio = { hardware, unit: new VirtioIommuUnit(hardware) };
      this.events.isVirtio = true;
    }
  }

  addDevice(index: number, name: string, untrusted: boolean): void {
    const device: Device = {
      name,
      untrusted,
      requester: requesterId(name),
      dma: undefined as unknown as Dma,
      domain: undefined,
      isIdentity: this.mode.identity === true,
      leaves: new Map(),
    };
    this.devices[index] = device;
    device.dma = this.#front(index, undefined);
    device.dma.device.skipSync = false; // no mask was set yet
  }

  /** A device that the file has named. */
  device(index: number): Device {
    const found = this.devices[index];
    if (found === undefined) throw new NotJudged(`device ${index} is used, and no line says which it is`);
    return found;
  }

  /** A fresh domain for a device. `domainId` is what the kernel's descriptors say. */
  enter(index: number, type: string, domainId: number): void {
    const device = this.device(index);
    const before = device.dma;
    const mode = known("a domain of the type", DOMAINS, type);
    this.events.recording = false;
    const domain = mode === "identity" ? undefined : this.#domainOf(device.requester, mode, domainId);
    device.domain?.destroy();
    device.domain = domain;
    device.isIdentity = mode === "identity";
    device.leaves = new Map();
    device.dma = this.#front(index, domain, before);
    this.events.recording = true;
    this.events.take();
  }

  #domainOf(requester: number, mode: "strict" | "lazy", domainId: number): DmaDomain | VirtioDmaDomain | undefined {
    const options = {
      clock: this.clock,
      mode,
      domainId,
      reserved: [INTERRUPT_WINDOW, ...BRIDGE_WINDOWS],
      observer: this.events,
      checked: false,
    };
    if (this.unit) {
      const layout = this.mode.vtd?.scalableMode ? x86_64() : vtdSecondStage();
      const domain = new DmaDomain({ ...options, unit: this.unit, layout, tableMemory: this.arena });
      this.unit.detach(requester);
      this.unit.attach(requester, domain.tables, { ...(this.#ats && { ats: { queueDepth: 0, stu: 0 } }) });
      return domain;
    }
    if (!this.virtio) return undefined;
    const domain = new VirtioDmaDomain({ ...options, unit: this.virtio.unit, linuxCompatible: true });
    this.virtio.unit.attach(requester, domain);
    return domain;
  }

  #front(index: number, domain: DmaDomain | VirtioDmaDomain | undefined, before?: Dma): Dma {
    const { name, untrusted } = this.device(index);
    const limits = before?.device;
    const node = this.tree.devices[index];
    const dma = new Dma({
      name,
      untrusted,
      machine: this.#machine,
      observer: this.events,
      forceBounce: this.mode.forceBounce === true,
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

  /** The device has page tables, whose entries a file tells of. */
  hasTables(index: number): boolean {
    return this.devices[index]?.domain instanceof DmaDomain;
  }

  /** Leaves that appeared or went since the last time, as the files write them, and how many tables and leaves there are. */
  changes(index: number): { changed: [string, string, string, number][]; tables: number; leaves: number } {
    const device = this.device(index);
    const { table } = device.domain as DmaDomain;
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
    const { domain } = this.device(index);
    if (!domain) return PhysAddr(address);
    const page = domain.lookup(Math.floor(address / 4096) as IovaPage);
    return page < 0 ? undefined : PhysAddr(page * 4096 + (address % 4096));
  }

  /** The bytes that a device has of its own. */
  engineBuffer(index: number): Uint8Array {
    const buffer = this.#buffers.get(index) ?? new Uint8Array(4096);
    this.#buffers.set(index, buffer);
    return buffer;
  }

  /** What the unit refused since the last time. */
  faults(): string[] {
    this.unit?.readFaults();
    return (this.unit?.faults.drain() ?? []).flatMap((fault) =>
      fault.kind !== "translation"
        ? []
        : `${fault.access} of ${requesterName(fault.requester).slice(5)} at ${hex(fault.page * 4096)}: reason ${fault.reason}`,
    );
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
