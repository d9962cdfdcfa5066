/** The machine of a run of GPUs: host, process, GPUs with memory of their own, shared memory and a user pointer; and what is true of it. */
import { MiB, PAGE_SIZE, PhysPage, Random } from "../../base/index.ts";
import {
  GpuDevice,
  GpuGroup,
  GpuMemory,
  type GpuSpace,
  KeptPages,
  type UserPointer,
} from "../../consumers/gpu/index.ts";
import type { Dma } from "../../dma/index.ts";
import { GpuInterconnect, SimulatedGpu, SimulatedHost } from "../../hosts/simulated/index.ts";
import { Frames, SimulatedDeviceMemory, SimulatedProcess } from "../../hosts/simulated/process/index.ts";
import { gpuPlace } from "../../layouts/gpu/index.ts";
import { newPageEntry, type PageEntry, UserAddr } from "../../platform/index.ts";
import { poisoningPages } from "../bytes.ts";
import { Broken, type RunOptions } from "../scenario.ts";
import { type GpuPlan, POINTER, THREADS } from "./plan.ts";

/** Where memory of the threads begins. */
const START = 2 ** 32;
/** Where the user pointer's memory begins: in no chunk of the threads. */
const POINTER_START = 2 ** 33;
/** Page numbers of the GPUs' memory. */
const GPU_PAGES = (2 ** 36) as PhysPage;

/** One GPU, as the process uses it. */
interface SimulationGpu {
  readonly model: SimulatedGpu;
  readonly dma: Dma;
  readonly device: GpuDevice;
  readonly memory: GpuMemory;
  readonly pool: SimulatedDeviceMemory;
  readonly space: GpuSpace;
}

/** Everything of a run. */
export class GpuWorld {
  readonly host: SimulatedHost;
  readonly process: SimulatedProcess;
  readonly frames: Frames;
  readonly gpus: readonly SimulationGpu[];
  readonly pointer: UserPointer;
  readonly #plan: GpuPlan;
  readonly #entry: PageEntry = newPageEntry();

  constructor(plan: GpuPlan, options: RunOptions) {
    const { config, seed } = plan;
    this.#plan = plan;
    const { iommu } = config;
    const bytes = (THREADS * config.threadPages + config.pointerPages) * PAGE_SIZE;
    this.host = new SimulatedHost({
      seed,
      memoryBytes: 4 * 2 ** Math.ceil(Math.log2(bytes)) + 64 * MiB,
      scattered: config.hugePages === "never",
      ...(iommu !== "none" && { iommu: { mode: iommu } }),
      ...(options.observer && { observer: options.observer }),
    });
    this.frames = new Frames({
      pages: poisoningPages(this.host.machine.pages, this.host.machine.memory),
      memory: this.host.machine.memory,
      settings: { hugePages: config.hugePages, quietSplits: config.quietSplits },
    });
    this.process = new SimulatedProcess(this.frames);
    const { memory } = this.process;
    memory.map({ address: UserAddr(START), length: THREADS * config.threadPages * PAGE_SIZE });
    memory.map({ address: UserAddr(POINTER_START), length: config.pointerPages * PAGE_SIZE });
    const interconnect = new GpuInterconnect();
    const common = new GpuGroup("linked GPUs");
    const wants = Random.fromSeed(seed).fork("where pages shall be");
    this.gpus = Array.from({ length: config.gpus }, (_, i) => {
      const link = config.linked ? { interconnect, link: i } : {};
      const model = new SimulatedGpu({ name: `gpu ${i}`, memoryBytes: config.gpuMemoryBytes, ...link });
      options.parts?.gpu?.(model);
      const [pci] = this.host.plug(`0.${i}`, model);
      pci!.setBusMaster(true);
      const { dma } = this.host.openDevice(pci!.name);
      dma.setMask(2 ** 48 - 1);
      return this.#gpu(model, dma, config.linked ? common : new GpuGroup(`gpu ${i}`), i, wants);
    });
    this.pointer = this.gpus[0]!.space.bindUserPointer({
      start: POINTER_START,
      length: config.pointerPages * PAGE_SIZE,
      wholeObject: config.wholePointer,
      leaves: config.leaves,
    });
  }

  /** Pages of what is `thread`'s own. */
  pagesOf(thread: number): number {
    return thread === POINTER ? this.#plan.config.pointerPages : this.#plan.config.threadPages;
  }

  /** Address of its page. */
  at(thread: number, page: number): UserAddr {
    if (thread === POINTER) return UserAddr(POINTER_START + page * PAGE_SIZE);
    return UserAddr(START + (thread * this.#plan.config.threadPages + page) * PAGE_SIZE);
  }

  /** The bytes of a page, wherever it is, without touching it; undefined: nothing is there. */
  peek(address: UserAddr, into: Uint8Array): boolean {
    const entry = this.#entry;
    this.process.memory.entryAt(address, entry);
    if (entry.kind === "present") this.host.machine.memory.read(PhysPage.start(entry.page), into);
    else if (entry.kind === "device-private") this.#poolOf(entry.page).read(entry.page, 0, into);
    else return false;
    return true;
  }

  /** What a GPU may use of this page is what the process has, with no more rights; and a page of a GPU is mapped for nobody on the bus. */
  checkPage(address: UserAddr): void {
    const entry = this.#entry;
    for (const { space, dma, memory, model } of this.gpus) {
      const page = address / PAGE_SIZE;
      const found = space.table.lookup(page);
      if (found < 0) continue;
      this.process.memory.entryAt(address, entry);
      const place = gpuPlace(found);
      const reached =
        place.at === "local"
          ? memory.firstPage + place.index
          : place.at === "link"
            ? this.gpus[place.link]!.memory.firstPage + place.index
            : dma.domain
              ? dma.domain.lookup(place.index as never)
              : place.index;
      const isThere = entry.kind === "present" || entry.kind === "device-private";
      if (!isThere || reached !== entry.page)
        throw new Broken(
          "teardown",
          `${model.name} reaches page ${reached} at 0x${address.toString(16)}, where the process has ${entry.kind} ${entry.page}`,
        );
      if (space.table.entryAt(page)!.writable && !entry.writable)
        throw new Broken("trust", `${model.name} may write 0x${address.toString(16)}, and the process may not`);
    }
  }

  /** Every page that a pointer has mapped lies where its address says. */
  checkPointer(): void {
    const { backing } = this.pointer;
    if (!(backing instanceof KeptPages) || backing.address === undefined) return;
    for (let i = 0; i < backing.pages; i++) {
      const address = backing.addressOf(i);
      if (address !== undefined && address !== backing.address + i * PAGE_SIZE)
        throw new Broken("teardown", `page ${i} of the user pointer has moved on the bus`);
    }
  }

  /** Everything goes; what is left then. */
  end(): string[] {
    for (const { device } of this.gpus) device.close();
    this.process.exit();
    const left: string[] = [];
    for (const { dma, pool, memory, model } of this.gpus) {
      const { leavesWritten, leavesCleared, iovaAllocations, iovaFrees } = dma.counters;
      if (leavesWritten !== leavesCleared) left.push(`${leavesWritten - leavesCleared} entries of the IOMMU`);
      if (iovaAllocations !== iovaFrees) left.push(`${iovaAllocations - iovaFrees} ranges of addresses`);
      if (pool.pagesInUse + memory.allocations.length > 0) left.push(`${pool.pagesInUse} pages of ${model.name}`);
      if (model.counts.busErrors > 0)
        left.push(`${model.counts.busErrors} accesses of ${model.name} refused on the bus`);
    }
    if (this.frames.inUse > 0) left.push(`${this.frames.inUse} pages of the process`);
    if (this.host.faults > 0) left.push(`${this.host.faults} requests that the IOMMU refused`);
    this.host.close();
    return left;
  }

  #gpu(model: SimulatedGpu, dma: Dma, group: GpuGroup, index: number, wants: Random): SimulationGpu {
    const { config } = this.#plan;
    const { clock } = this.host;
    const firstPage = PhysPage.add(GPU_PAGES, index * 2 ** 20);
    const timeslice = { lengthMs: config.timesliceMs, clock, wait: () => clock.advance(1) };
    const memory = new GpuMemory({
      adapter: model,
      dma,
      group,
      firstPage,
      ...(config.timesliceMs > 0 && { timeslice }),
    });
    const pool = new SimulatedDeviceMemory({
      frames: this.frames,
      kind: "device-private",
      owner: group,
      firstPage,
      pages: model.memoryPages,
      bytes: model.memory,
      driver: memory,
    });
    memory.usePool(pool);
    const device = new GpuDevice({ adapter: model, dma });
    const space = device.openSpace(this.process.memory);
    space.shareMemory({
      start: START,
      end: START + THREADS * config.threadPages * PAGE_SIZE,
      notifierBytes: config.notifierBytes,
      chunks: config.chunks,
      policy: config.policy,
      leaves: config.leaves,
      allowMixed: config.allowMixed,
      gpuMemory: memory,
      wantsGpuMemory: () => wants.chance(config.moves, 10),
    });
    return { model, dma, device, memory, pool, space };
  }

  #poolOf(page: number): SimulatedDeviceMemory {
    return this.gpus.find(({ memory }) => memory.holds(page))!.pool;
  }
}
