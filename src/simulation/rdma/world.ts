/** Two machines on a wire for a run of RDMA: hosts, adapters, processes, devices, and the connection between them. */
import { MiB, PAGE_SIZE } from "../../base/index.ts";
import {
  type Completion,
  CompletionQueue,
  type MemoryRegion,
  type ProtectionDomain,
  QueuePair,
  RdmaDevice,
  WHOLE_ADDRESS_SPACE,
} from "../../consumers/rdma/index.ts";
import { Rnic, SimulatedHost, VirtualClock, Wire } from "../../hosts/simulated/index.ts";
import { Frames, SimulatedProcess } from "../../hosts/simulated/process/index.ts";
import { ACCESS } from "../../layouts/rdma/index.ts";
import { UserAddr } from "../../platform/index.ts";
import { Broken, type RunOptions } from "../scenario.ts";
import { type RdmaPlan, REGION_PAGES } from "./plan.ts";

/** Where regions lie. */
export const START: UserAddr = UserAddr(2 ** 32);
export const REGION_BYTES: number = REGION_PAGES * PAGE_SIZE;
const ALL = ACCESS.localWrite | ACCESS.remoteWrite | ACCESS.remoteRead | ACCESS.remoteAtomic;

/** One machine. */
interface RdmaSide {
  readonly host: SimulatedHost;
  readonly process: SimulatedProcess;
  readonly frames: Frames;
  readonly device: RdmaDevice;
  readonly domain: ProtectionDomain;
  readonly queue: CompletionQueue;
}

/** Both machines, and a connection that is made anew when it has failed. */
export class RdmaWorld {
  readonly clock: VirtualClock = new VirtualClock();
  readonly near: RdmaSide;
  readonly far: RdmaSide;
  pairs: [QueuePair, QueuePair];
  readonly #plan: RdmaPlan;

  constructor(plan: RdmaPlan, options: RunOptions) {
    const { config, seed } = plan;
    this.#plan = plan;
    const wire = new Wire({ clock: this.clock, seed, ...config.wire });
    const sides = [1, 2].map((address): RdmaSide => {
      const { iommu } = config;
      const host = new SimulatedHost({
        seed: seed + address,
        memoryBytes: 64 * MiB,
        scattered: true,
        ...(iommu !== "none" && { iommu: { mode: iommu } }),
        ...(options.observer && { observer: options.observer }),
      });
      const adapter = new Rnic({ wire, address });
      options.parts?.adapter?.(adapter);
      const [pci] = host.plug("0.0", adapter);
      pci!.setBusMaster(true);
      const { dma } = host.openDevice(pci!.name);
      const frames = new Frames({ pages: host.machine.pages, memory: host.machine.memory });
      const process = new SimulatedProcess(frames);
      process.memory.map({ address: START, length: REGION_BYTES });
      const device = new RdmaDevice({
        adapter,
        dma,
        clock: this.clock,
        capabilities: { implicitOnDemand: true },
        implicitPartBytes: 2 ** 30,
        batched: !config.oneByOne,
      });
      return { host, process, frames, device, domain: device.allocateDomain(), queue: new CompletionQueue(device, 64) };
    });
    [this.near, this.far] = sides as [RdmaSide, RdmaSide];
    this.pairs = this.#connect();
  }

  /** The near side's memory is pinned, the far side's as the plan says. */
  register(side: RdmaSide): MemoryRegion {
    const { process, device, domain } = side;
    const { memory } = this.#plan.config;
    const part = { process, address: START, length: REGION_BYTES };
    if (side === this.near || memory === "pinned") return device.register(domain, { ...part, access: ALL });
    const access = ALL | ACCESS.onDemand;
    if (memory === "on demand") return device.register(domain, { ...part, access });
    return device.register(domain, { process, address: 0, length: WHOLE_ADDRESS_SPACE, access });
  }

  /** Lets time go on until something is done there. */
  next({ queue }: RdmaSide): Completion {
    for (;;) {
      const done = queue.poll();
      if (done) return done;
      if (!this.clock.step()) throw new Broken("bytes", "nothing is under way, and a request has not ended");
    }
  }

  /** After an error: both sides begin anew. */
  reconnect(): void {
    for (const pair of this.pairs) pair.free();
    while (this.clock.step());
    for (const { queue } of [this.near, this.far]) queue.drain();
    this.pairs = this.#connect();
  }

  /** Everything goes; what is left then. */
  end(): string[] {
    for (const pair of this.pairs) pair.free();
    const left: string[] = [];
    for (const { device, queue, process } of [this.near, this.far]) {
      device.close();
      queue.free();
      process.exit();
    }
    while (this.clock.step());
    for (const [i, { host, frames, process }] of [this.near, this.far].entries()) {
      if (host.faults > 0) left.push(`machine ${i + 1}: the IOMMU refused ${host.faults} accesses`);
      if (frames.inUse > 0) left.push(`machine ${i + 1}: ${frames.inUse} pages of processes`);
      if (process.memory.pinned.pages > 0) left.push(`machine ${i + 1}: ${process.memory.pinned.pages} pinned pages`);
      host.close();
    }
    return left;
  }

  #connect(): [QueuePair, QueuePair] {
    const { mtuBytes } = this.#plan.config;
    const [near, far] = [this.near, this.far].map(
      ({ device, domain, queue }) => new QueuePair(device, { domain, sendCompletions: queue }),
    ) as [QueuePair, QueuePair];
    near.connect({ peer: 2, peerNumber: far.number, mtuBytes });
    far.connect({ peer: 1, peerNumber: near.number, mtuBytes });
    return [near, far];
  }
}
