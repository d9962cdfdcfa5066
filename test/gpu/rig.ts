/** A machine with GPUs for tests: host, processes, GPUs with memory of their own, and their driver. */
import { Counters, MiB, PAGE_SIZE, PhysPage } from "../../src/base/index.ts";
import { GpuDevice, GpuGroup, GpuMemory, type Timeslice } from "../../src/consumers/gpu/index.ts";
import type { Dma } from "../../src/dma/index.ts";
import {
  GpuInterconnect,
  type IommuDescription,
  SimulatedGpu,
  SimulatedHost,
  type SimulatedHostOptions,
} from "../../src/hosts/simulated/index.ts";
import {
  Frames,
  type FramesOptions,
  type ProcessMemory,
  SimulatedDeviceMemory,
  SimulatedProcess,
} from "../../src/hosts/simulated/process/index.ts";
import { UserAddr, type UserMemory } from "../../src/platform/index.ts";

/** Where memory of the process begins: a multiple of 2 MiB. */
export const START: number = 2 ** 32;
/** Page numbers of the first GPU's memory. */
const GPU_PAGES = (2 ** 36) as PhysPage;

export interface Gpu {
  readonly model: SimulatedGpu;
  readonly device: GpuDevice;
  readonly dma: Dma;
  readonly memory: GpuMemory;
  readonly pool: SimulatedDeviceMemory;
}

export interface RigOptions {
  /** `false`: no IOMMU. */
  readonly iommu?: IommuDescription | false;
  readonly gpus?: number;
  readonly gpuBytes?: number;
  /** All GPUs in one group, on one interconnect. */
  readonly linked?: boolean;
  readonly host?: Partial<SimulatedHostOptions>;
  readonly frames?: Partial<FramesOptions>;
  readonly limits?: Parameters<SimulatedHost["openDevice"]>[1];
  readonly timeslice?: (host: SimulatedHost) => Timeslice;
}

/** The machine, and everything on it. */
export interface Rig {
  readonly host: SimulatedHost;
  readonly frames: Frames;
  readonly process: SimulatedProcess;
  readonly memory: ProcessMemory;
  readonly gpus: readonly Gpu[];
  readonly gpu: Gpu;
  /** What is not as it was: entries, address space, pages; nothing if all was given back. The process must have ended. */
  leftovers(): string[];
}

export function gpuRig(options: RigOptions = {}): Rig {
  const { iommu = { mode: "strict" }, gpus: count = 1, gpuBytes = 16 * MiB, linked = false } = options;
  const host = new SimulatedHost({
    seed: 7,
    memoryBytes: 512 * MiB,
    bridges: [{ cpu: { vendor: "AMD", family: 0x19 }, rootPorts: [{ switch: [{}, {}] }, {}, {}, {}] }],
    iommu: iommu === false ? undefined : iommu,
    ...options.host,
  });
  const frames = new Frames({ pages: host.machine.pages, memory: host.machine.memory, ...options.frames });
  const process = new SimulatedProcess(frames);
  const interconnect = new GpuInterconnect();
  const common = new GpuGroup("gpus");
  const slots = ["0.0.0", "0.0.1", "0.1", "0.2"];
  const gpus: Gpu[] = Array.from({ length: count }, (_, i): Gpu => {
    const model = new SimulatedGpu({
      name: `gpu ${i}`,
      memoryBytes: gpuBytes,
      ...(linked && { interconnect, link: i }),
    });
    const [pci] = host.plug(slots[i]!, model);
    pci!.setBusMaster(true);
    const { dma } = host.openDevice(pci!.name, { counters: new Counters(), ...options.limits });
    if (!options.limits) dma.setMask(2 ** 48 - 1);
    const group = linked ? common : new GpuGroup(`gpu ${i}`);
    const firstPage = PhysPage.add(GPU_PAGES, i * 2 ** 20);
    const timeslice = options.timeslice?.(host);
    const memory = new GpuMemory({ adapter: model, dma, group, firstPage, ...(timeslice && { timeslice }) });
    const pool = new SimulatedDeviceMemory({
      frames,
      kind: "device-private",
      owner: group,
      firstPage,
      pages: model.memoryPages,
      bytes: model.memory,
      driver: memory,
    });
    memory.usePool(pool);
    return { model, device: new GpuDevice({ adapter: model, dma }), dma, memory, pool };
  });
  const { memory } = process;
  return {
    host,
    frames,
    process,
    memory,
    gpus,
    gpu: gpus[0]!,
    leftovers(): string[] {
      const left: string[] = [];
      for (const { dma, pool, memory: own, model } of gpus) {
        const { leavesWritten, leavesCleared, iovaAllocations, iovaFrees } = dma.counters;
        if (leavesWritten !== leavesCleared) left.push(`${leavesWritten - leavesCleared} entries of the IOMMU`);
        if (iovaAllocations !== iovaFrees) left.push(`${iovaAllocations - iovaFrees} address ranges`);
        if (pool.pagesInUse > 0) left.push(`${pool.pagesInUse} pages of a GPU`);
        if (own.allocations.length > 0) left.push(`${own.allocations.length} allocations of a GPU`);
        if (model.counts.busErrors > 0) left.push(`${model.counts.busErrors} accesses refused on the bus`);
      }
      if (frames.inUse > 0) left.push(`${frames.inUse} pages of processes`);
      if (host.faults > 0) left.push(`${host.faults} faults of the IOMMU`);
      return left;
    },
  };
}
/** Address of page `page` of the process's memory. */
export const at = (page: number): UserAddr => UserAddr(START + page * PAGE_SIZE);

/** Maps `pages` pages of memory of the process's own from START on. */
export const mapPages = (rig: Rig, pages: number, first = 0): void =>
  void rig.process.memory.map({ address: at(first), length: pages * PAGE_SIZE });

/** The bytes that a process reads from page `page` on. */
export function bytesAt(memory: UserMemory, page: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  if (memory.read(at(page), bytes) !== length) throw new Error("the process could not read its own memory");
  return bytes;
}

/** Byte for byte, without the time that an assertion on large arrays takes. */
export const isSame = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0;

/** What a GPU writes with `fill`. */
export const pattern = (seed: number, length: number): Uint8Array =>
  Uint8Array.from({ length }, (_, i) => (seed + i) % 251);
