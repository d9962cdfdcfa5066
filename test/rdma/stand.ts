/** Machines with RDMA adapters on one wire, a process on each, and what tests ask of them. */
import { MiB, PAGE_SIZE, type PhysAddr, Random } from "../../src/base/index.ts";
import {
  type Completion,
  CompletionQueue,
  type ProtectionDomain,
  QueuePair,
  RdmaDevice,
  type RdmaDeviceOptions,
} from "../../src/consumers/rdma/index.ts";
import type { Dma } from "../../src/dma/index.ts";
import {
  DmaEngine,
  Rnic,
  type RnicOptions,
  SimulatedHost,
  type SimulatedHostOptions,
  type SimulatedPciDevice,
  VirtualClock,
  Wire,
  type WireOptions,
} from "../../src/hosts/simulated/index.ts";
import { Frames, type FramesOptions, SimulatedProcess } from "../../src/hosts/simulated/process/index.ts";
import type { DmaDomain } from "../../src/iommu/index.ts";
import { ACCESS } from "../../src/layouts/rdma/index.ts";
import { UserAddr } from "../../src/platform/index.ts";

export const ALL: number = ACCESS.localWrite | ACCESS.remoteWrite | ACCESS.remoteRead | ACCESS.remoteAtomic;
export const START: UserAddr = UserAddr(2 ** 32);
export const at = (page: number): UserAddr => UserAddr(START + page * PAGE_SIZE);

/** Calls `step` before every entry that is linked in two steps, or mapped in one, in a domain. */
export function beforeEachMap(domain: DmaDomain, step: () => void): void {
  const { map, openLinks } = domain;
  domain.map = (...args) => {
    step();
    return map.apply(domain, args);
  };
  domain.openLinks = () => {
    const links = openLinks.call(domain);
    return new Proxy(links, {
      get: (target, name) => {
        const value = Reflect.get(target, name, target);
        if (typeof value !== "function") return value;
        return (...args: unknown[]) => {
          if (String(name).startsWith("map")) step();
          return value.apply(target, args);
        };
      },
    });
  };
}

/** First byte that differs; -1: none. */
export function firstDifference(found: Uint8Array, expected: Uint8Array): number {
  if (found.length !== expected.length) return Math.min(found.length, expected.length);
  return found.findIndex((byte, i) => byte !== expected[i]);
}

export interface SideOptions {
  readonly host?: SimulatedHostOptions;
  readonly nic?: Partial<RnicOptions>;
  readonly device?: Partial<RdmaDeviceOptions>;
  readonly frames?: Partial<FramesOptions>;
  /** Pages of anonymous memory at START. 64 unless said. */
  readonly pages?: number;
}

/** One machine: host, adapter, process, device. */
export class Side {
  readonly host: SimulatedHost;
  readonly nic: Rnic;
  readonly pci: SimulatedPciDevice;
  readonly dma: Dma;
  readonly domain: DmaDomain | undefined;
  readonly frames: Frames;
  readonly process: SimulatedProcess;
  readonly device: RdmaDevice;
  readonly pd: ProtectionDomain;

  constructor(wire: Wire, address: number, options: SideOptions = {}) {
    this.host = new SimulatedHost({
      memoryBytes: 256 * MiB,
      iommu: {},
      bridges: [{ cpu: { vendor: "AMD", family: 0x19 }, rootPorts: [{ switch: [{}, {}] }, {}] }],
      ...options.host,
    });
    const { machine } = this.host;
    this.nic = new Rnic({ wire, address, ...options.nic });
    [this.pci] = this.host.plug("0.0.0", this.nic) as [SimulatedPciDevice];
    this.pci.setBusMaster(true);
    const { dma, domain } = this.host.openDevice(this.pci.name, { limits: { maxSegmentSize: 2 ** 31 } });
    this.dma = dma;
    this.domain = domain;
    this.frames = new Frames({ pages: machine.pages, memory: machine.memory, ...options.frames });
    this.process = new SimulatedProcess(this.frames, { capabilities: ["IPC_LOCK"] });
    this.process.memory.map({ address: START, length: (options.pages ?? 64) * PAGE_SIZE });
    this.device = new RdmaDevice({
      adapter: this.nic,
      dma,
      clock: wire.clock,
      capabilities: { implicitOnDemand: true },
      ...options.device,
    });
    this.pd = this.device.allocateDomain();
  }

  /** Fills pages with what their place and `seed` say. */
  fill(page: number, pages: number, seed: number): Uint8Array {
    const bytes = new Uint8Array(pages * PAGE_SIZE);
    const random = Random.fromSeed(seed);
    const words = new Uint32Array(bytes.buffer);
    for (let i = 0; i < words.length; i++) words[i] = random.bits();
    this.process.memory.write(at(page), bytes);
    return bytes;
  }

  read(page: number, pages: number): Uint8Array {
    const bytes = new Uint8Array(pages * PAGE_SIZE);
    this.process.memory.read(at(page), bytes);
    return bytes;
  }

  /** Memory of a device in another slot, which peers can be given. */
  addPeer(slot: string, bytes = 65_536): { readonly phys: PhysAddr; readonly engine: DmaEngine } {
    const engine = new DmaEngine({ memoryBytes: bytes });
    const [pci] = this.host.plug(slot, engine);
    this.host.peers.add(pci!.node, pci!.node.bars[0]!);
    return { phys: pci!.node.bars[0]!.phys, engine };
  }
}

/** A side's end of a connection. */
export interface End {
  readonly side: Side;
  readonly queue: CompletionQueue;
  readonly pair: QueuePair;
}

/** Two machines, connected. */
export class Pair {
  readonly clock: VirtualClock = new VirtualClock();
  readonly wire: Wire;
  readonly a: Side;
  readonly b: Side;

  constructor(options: { wire?: Partial<WireOptions>; a?: SideOptions; b?: SideOptions } = {}) {
    this.wire = new Wire({ clock: this.clock, ...options.wire });
    this.a = new Side(this.wire, 1, options.a);
    this.b = new Side(this.wire, 2, options.b);
  }

  connect(
    options: { reliable?: boolean; mtuBytes?: number; notReadyRetries?: number; retries?: number } = {},
  ): [End, End] {
    const ends = [this.a, this.b].map((side) => {
      const queue = new CompletionQueue(side.device, 256);
      const reliable = options.reliable ?? true;
      return { side, queue, pair: new QueuePair(side.device, { domain: side.pd, sendCompletions: queue, reliable }) };
    }) as [End, End];
    const { reliable: _, ...rest } = options;
    ends.forEach((end, i) => {
      const other = ends[1 - i]!;
      end.pair.connect({
        peer: other.side.nic.port,
        peerNumber: other.pair.number,
        firstSent: i === 0 ? 0xff_fff0 : 100,
        firstExpected: i === 0 ? 100 : 0xff_fff0,
        ...rest,
      });
    });
    return ends;
  }

  /** Lets time go on until a completion comes to `queue`. */
  next(queue: CompletionQueue): Completion {
    for (;;) {
      const found = queue.poll();
      if (found) return found;
      if (!this.clock.step()) throw new Error("nothing is under way, and no completion came");
    }
  }

  /** Lets everything come to rest. */
  settle(): void {
    while (this.clock.step());
  }

  /** What is still there after all was given back: must be nothing. */
  leftOvers(): string[] {
    return [this.a, this.b].flatMap((side) => {
      const { domain, dma } = side;
      const left: string[] = [];
      if (side.process.memory.pinned.pages !== 0) left.push(`${side.process.memory.pinned.pages} pinned pages`);
      if (side.device.regions !== 0) left.push(`${side.device.regions} regions`);
      const leaves = [...(domain?.table.entries() ?? [])].filter(({ leaf }) => leaf).length;
      if (leaves !== 0) left.push(`${leaves} leaves`);
      if (dma.counters.iovaAllocations !== dma.counters.iovaFrees)
        left.push(`${dma.counters.iovaAllocations - dma.counters.iovaFrees} ranges`);
      if (side.host.faults !== 0) left.push(`${side.host.faults} refused requests`);
      return left;
    });
  }

  close(...ends: End[]): void {
    for (const { pair, queue } of ends) {
      pair.free();
      queue.free();
    }
    this.a.device.close();
    this.b.device.close();
  }
}
