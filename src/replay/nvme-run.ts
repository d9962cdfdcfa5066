/**
 * One run of a load as NVMe commands: a machine, a disk that answers when the recording says, the driver, and what all of it did.
 *
 * Idea: the memory of the load is as wide as its addresses, and the driver's own lies behind it, so that neither is ever in the
 * other's way. The disk holds each request at a place of its own (nvme-bytes.ts), so a command says which request it is of.
 * Promises: after a run nothing is mapped and the machine is gone; what it found out is a plain value.
 */
import { type Counters, GiB, MiB, PAGE_SIZE, PhysAddr, type PhysPage, Random } from "../base/index.ts";
import { type MapperCounters, Nvme } from "../consumers/nvme/index.ts";
import { Dma } from "../dma/index.ts";
import {
  type CommandSeen,
  NvmeController,
  type NvmeFault,
  SimulatedMachine,
  type SimulatedMemory,
  type SimulatedPciDevice,
  SimulatedUnit,
} from "../hosts/simulated/index.ts";
import { DmaDomain } from "../iommu/index.ts";
import { IO } from "../layouts/nvme/index.ts";
import { layoutNamed } from "../layouts/pagetable/index.ts";
import type { PageAllocator } from "../platform/index.ts";
import type { ReplayMachineOptions } from "./machine.ts";
import { DISK_BYTES_EACH, NvmeBytes, type NvmeDirection, type NvmeMismatch } from "./nvme-bytes.ts";
import { BLOCK_BYTES } from "./nvme-load.ts";
import type { Plan } from "./plan.ts";

interface NvmeRunOptions extends ReplayMachineOptions {
  readonly seed: number;
  /** The controller's longest transfer, if it has a limit. */
  readonly maxTransferBytes?: number;
  /** What requests are that may go either way. */
  readonly unsaid: NvmeDirection;
}

/** What a run found out, the end of what the recording left mapped not counted. */
export interface NvmeOutcome {
  /** Of the device's domain. */
  readonly counters: Counters;
  /** Of the driver. */
  readonly mapper: MapperCounters;
  readonly queueDepth: number;
  readonly commandsAtOnce: number;
  readonly queues: number;
  readonly maxBytes: number;
  readonly commands: number;
  readonly reads: number;
  readonly split: number;
  readonly submissionDoorbells: number;
  readonly completionDoorbells: number;
  readonly interrupts: number;
  readonly verifiedBytes: number;
  readonly mismatches: number;
  readonly firstMismatch: NvmeMismatch | undefined;
  readonly failed: number;
  readonly firstFailure: string | undefined;
  /** What was not given back, in words: nothing, unless something is broken. */
  readonly leaks: readonly string[];
}

const BLOCKS_EACH = DISK_BYTES_EACH / BLOCK_BYTES;
const SLOT = "0.0";
const MOST_SEGMENTS = 256;
/** Commands that one queue of the driver holds, and the most queues that are made; more commands wait. */
const MOST_IN_QUEUE = 1023;
const MOST_QUEUES = 32;
/** What the recording left mapped ends so long after it. */
const AFTERWARDS_MS = 1000;
/** How long a command takes is the recording's: none runs out of time. */
const NEVER_MS = 2 ** 31 - 1;
/** How many rounds of promise callbacks run before virtual time moves on: a command of the driver takes more than one. */
const TURNS = 4;

export class NvmeRun {
  readonly #plan: Plan;
  readonly #unsaid: NvmeDirection;
  readonly #machine: SimulatedMachine;
  readonly #domain: DmaDomain;
  readonly #device: SimulatedPciDevice;
  readonly #controller: NvmeController;
  readonly #bytes: NvmeBytes;
  readonly #dma: Dma;
  readonly #lastMs: number;
  /** The machine's time less the recording's. */
  #offsetMs = 0;
  /** Commands of each request. */
  readonly #commands: Uint32Array;
  #reads = 0;
  #atOnce = 0;
  #mostAtOnce = 0;
  #mostCommands = 0;
  #failed = 0;
  #firstFailure: string | undefined;

  constructor(plan: Plan, options: NvmeRunOptions) {
    const { iommu, mode, cachingMode, largestCached, maxTransferBytes } = options;
    const { loads, startMs, endMs } = plan;
    this.#plan = plan;
    this.#unsaid = options.unsaid;
    this.#commands = new Uint32Array(loads.length);
    this.#lastMs = startMs.reduce((last, start, i) => Math.max(last, start, endMs[i]! || 0), 0);
    const memoryBytes = memoryFor(plan);
    const unit = new SimulatedUnit({ cachingMode });
    const isRam = (page: PhysPage): boolean => page * PAGE_SIZE < memoryBytes + GiB;
    this.#machine = new SimulatedMachine({ memoryBytes, isRam, translator: unit });
    const { dram, clock } = this.#machine;
    this.#bytes = new NvmeBytes(dram, loads, Random.fromSeed(options.seed).fork("bytes"));
    this.#controller = new NvmeController({
      namespaces: [{ blocks: Math.max(1, loads.length) * BLOCKS_EACH, store: this.#bytes }],
      ioQueues: MOST_QUEUES,
      serviceMs: 0,
      faults: (command) => (command.queue > 0 ? this.#taken(command) : undefined),
      ...(maxTransferBytes !== undefined && { maxTransferShift: Math.log2(maxTransferBytes / PAGE_SIZE) }),
    });
    this.#device = this.#machine.plug(SLOT, this.#controller)[0]!;
    this.#domain = new DmaDomain({
      layout: layoutNamed(iommu),
      unit,
      clock,
      mode,
      countSteps: true,
      ...(largestCached !== undefined && { largestCached }),
    });
    const { requester, name, node } = this.#device;
    unit.attach(requester, this.#domain.tables);
    const pages = pagesFrom(memoryBytes, dram);
    this.#dma = new Dma({ domain: this.#domain, name, node, machine: { memory: dram, pages } });
  }

  async run(): Promise<NvmeOutcome> {
    const { clock } = this.#machine;
    const { optMappingSize } = this.#dma;
    const slots = mostCommands(this.#plan, Math.min(this.#controller.maxTransferBytes, optMappingSize));
    const queues = Math.min(MOST_QUEUES, Math.ceil(slots / MOST_IN_QUEUE));
    const queueDepth = Math.min(MOST_IN_QUEUE, Math.ceil(slots / queues));
    const options = { clock, queues, queueDepth, timeoutMs: NEVER_MS };
    const nvme = await clock.run(Nvme.open(this.#device, this.#dma, options));
    const { counters } = this.#domain;
    const { engine } = this.#controller;
    const before = counters.snapshot();
    const { submissionDoorbells, completionDoorbells, interrupts } = engine;
    const requests = await this.#replay(nvme);
    const outcome = {
      counters: counters.since(before),
      mapper: { ...nvme.counters },
      queueDepth: this.#mostAtOnce,
      commandsAtOnce: this.#mostCommands,
      queues,
      maxBytes: nvme.disk.limits.maxBytes,
      commands: this.#commands.reduce((sum, commands) => sum + commands, 0),
      reads: this.#reads,
      split: this.#commands.filter((commands) => commands > 1).length,
      submissionDoorbells: engine.submissionDoorbells - submissionDoorbells,
      completionDoorbells: engine.completionDoorbells - completionDoorbells,
      interrupts: engine.interrupts - interrupts,
    };
    await clock.run(Promise.all(requests));
    this.#bytes.check();
    await clock.run(nvme.close());
    const { verifiedBytes, mismatches, first: firstMismatch } = this.#bytes;
    return {
      ...outcome,
      verifiedBytes,
      mismatches,
      firstMismatch,
      failed: this.#failed,
      firstFailure: this.#firstFailure,
      leaks: this.#leaks(),
    };
  }

  /** Sends every request when it began, and lets pass what time the recording took. Those that are not over yet may go on. */
  async #replay(nvme: Nvme): Promise<Promise<void>[]> {
    const { clock } = this.#machine;
    const { order, loads, startMs } = this.#plan;
    const requests: Promise<void>[] = [];
    this.#offsetMs = clock.nowMs() - (startMs[order[0] ?? 0] ?? 0);
    for (const step of order) {
      if (step < 0) continue; // its command knows when to end
      await this.#pass(startMs[step]!);
      const load = loads.at(step);
      const direction =
        load.direction === "bidirectional" ? this.#unsaid : load.direction === "from-device" ? "read" : "write";
      this.#mostAtOnce = Math.max(this.#mostAtOnce, ++this.#atOnce);
      const sent = nvme.disk[direction](step * BLOCKS_EACH, load.vecs);
      requests.push(sent.then(this.#done, this.#done));
      this.#mostCommands = Math.max(this.#mostCommands, nvme.inUse.commands);
    }
    await this.#pass(this.#lastMs);
    return requests;
  }

  /** Until `recordedMs`; what ended on the way has been checked then. */
  async #pass(recordedMs: number): Promise<void> {
    this.#machine.clock.advanceTo(this.#offsetMs + recordedMs);
    for (let turn = 0; turn < TURNS; turn++) await undefined;
    this.#bytes.check();
  }

  /** A request is over: with nothing, or with an error. */
  readonly #done = (error: unknown): void => {
    this.#atOnce--;
    if (error === undefined) return;
    this.#failed++;
    this.#firstFailure ??= error instanceof Error ? error.message : String(error);
  };

  /** The controller has taken a command, which moves its data now and ends when the recorded request did. */
  #taken({ firstBlock, blocks, opcode }: CommandSeen): NvmeFault {
    const { atOnce, endMs } = this.#plan;
    const request = Math.floor(firstBlock / BLOCKS_EACH);
    this.#commands[request]!++;
    if (opcode === IO.read) this.#reads++;
    this.#bytes.taken(opcode === IO.read ? "read" : "write", firstBlock * BLOCK_BYTES, blocks * BLOCK_BYTES);
    if (atOnce.has(request)) return { kind: "held", ms: 0 };
    const end = this.#offsetMs + (Number.isNaN(endMs[request]!) ? this.#lastMs + AFTERWARDS_MS : endMs[request]!);
    return { kind: "held", ms: Math.max(0, end - this.#machine.clock.nowMs()) };
  }

  #leaks(): string[] {
    const { iovaAllocations, iovaFrees, leavesWritten, leavesCleared } = this.#domain.counters;
    const leaks = this.#machine.leaks().filter((leak) => !leak.startsWith("timers")); // a lazy flush may wait
    if (iovaAllocations !== iovaFrees) leaks.push(`reserved ranges: ${iovaAllocations - iovaFrees}`);
    if (leavesWritten !== leavesCleared) leaks.push(`entries: ${leavesWritten - leavesCleared}`);
    return leaks;
  }
}

/** RAM for every address of the plan, whole MiB. */
function memoryFor({ loads }: Plan): number {
  let end = GiB;
  for (const { vecs } of loads) for (const { phys, length } of vecs) end = Math.max(end, phys + length);
  return Math.ceil(end / MiB) * MiB;
}

/** Pages for the driver from `start` on. What is given back is not used again: a driver asks for little, and at its start. */
function pagesFrom(start: number, memory: SimulatedMemory): PageAllocator {
  let next = start / PAGE_SIZE;
  return {
    allocatePages(pages) {
      next += pages;
      return (next - pages) as PhysPage;
    },
    freePages: (page, pages) => memory.forget(PhysAddr(page * PAGE_SIZE), pages * PAGE_SIZE),
  };
}

/** Commands at once, as many as there can be, if requests are split at `maxBytes`; at least one. */
function mostCommands({ loads, order, atOnce }: Plan, maxBytes: number): number {
  const commands = (step: number): number => {
    const { length, vecs } = loads.at(step);
    return Math.ceil(length / maxBytes) + Math.ceil(vecs.length / MOST_SEGMENTS) - 1;
  };
  let now = 0;
  let most = 1;
  for (const step of order) {
    if (step < 0) {
      now -= commands(~step);
      continue;
    }
    now += commands(step);
    most = Math.max(most, now);
    if (atOnce.has(step)) now -= commands(step);
  }
  return most;
}
