/**
 * A GPU: an MMU with a TLB of its own, memory behind a BAR, a copy engine, kernels, page faults in a queue, an interconnect.
 *
 * Idea: every access goes through two translations that know nothing of each other: the GPU's own tables, walked here, and behind them the
 * machine's IOMMU on the bus. Work stops between pages and where a page is absent, so that everything else can come between.
 * Promises: an invalidation that has returned leaves no access under way by what it took; an absent page is asked for once at a time.
 * Not for: graphics, speed, or the instruction set of any real GPU.
 * Specified by: layouts/gpu; platform/gpu-adapter.ts.
 */
import { type DmaAddr, IovaPage, PAGE_SIZE } from "../../../../base/index.ts";
import {
  type GpuAdapter,
  type GpuPageFault,
  type GpuWork,
  type GpuWorkResult,
  type Steps,
  WAITING,
} from "../../../../platform/index.ts";
import { type BarModel, type DeviceModel, type DevicePort, memoryTarget } from "../../device.ts";
import { notPlugged } from "../../errors.ts";
import { SimulatedUnit } from "../../units/tables-unit.ts";
import { type AccessOutcome, access } from "./access.ts";
import { badMemory } from "./errors.ts";
import type { GpuInterconnect } from "./interconnect.ts";
import { type Kernel, kernelOf, type PieceAccess, Stop } from "./kernels.ts";

/** A GPU to plug into a machine. */
export interface GpuOptions {
  /** For messages. "gpu" unless said. */
  readonly name?: string;
  /** Bytes of its own memory, behind BAR 2: a power of two from 2 MiB to 1 GiB. 16 MiB unless said. */
  readonly memoryBytes?: number;
  /** Joins it to others, at this place. */
  readonly interconnect?: GpuInterconnect;
  /** Its place on the interconnect. 0 unless said. */
  readonly link?: number;
}

/** What a GPU counts. */
export interface GpuCounts {
  /** Page faults that were put into the queue. */
  faults: number;
  /** Accesses that the machine's IOMMU refused. */
  busErrors: number;
  /** Pages that its copy engine moved. */
  copiedPages: number;
  /** Bytes that kernels moved or read. */
  kernelBytes: number;
}

const MEMORY_BAR = 2;
/** Looks at one page before the work counts as hung: a page that is taken away each time anew. */
const MOST_LOOKS = 10_000;

/** A simulated GPU. */
export class SimulatedGpu implements DeviceModel, GpuAdapter {
  readonly vendorId = 0x1234;
  readonly deviceId = 0x0024;
  /** A display controller that is a processing accelerator. */
  readonly classCode = 0x03_0200;
  readonly vectors = 1;
  readonly bars: readonly BarModel[];
  readonly name: string;
  readonly mmu: SimulatedUnit = new SimulatedUnit();
  readonly memoryPages: number;
  /** Its memory, as it sees it itself. */
  readonly memory: Uint8Array;
  readonly counts: GpuCounts = { faults: 0, busErrors: 0, copiedPages: 0, kernelBytes: 0 };
  readonly #interconnect: GpuInterconnect | undefined;
  readonly #link: number;
  readonly #faulting = new Set<number>();
  readonly #waiting = new Map<number, { readonly fault: GpuPageFault; answer: boolean | undefined; taken: boolean }>();
  #faultIds = 0;
  #port: DevicePort | undefined;

  /** @throws DmaError ERR_DMA_SIM_GPU_MEMORY (EINVAL), ERR_DMA_SIM_GPU_LINK (EBUSY, EINVAL) */
  constructor(options: GpuOptions = {}) {
    const { name = "gpu", memoryBytes = 2 ** 24, interconnect, link = 0 } = options;
    if (!(memoryBytes >= 2 ** 21 && memoryBytes <= 2 ** 30 && Number.isInteger(Math.log2(memoryBytes))))
      throw badMemory(memoryBytes);
    const target = memoryTarget(memoryBytes);
    this.name = name;
    this.memory = target.bytes;
    this.memoryPages = memoryBytes / PAGE_SIZE;
    this.bars = [{ index: MEMORY_BAR, length: memoryBytes, target }];
    this.#interconnect = interconnect;
    this.#link = link;
    interconnect?.join(link, { bytes: this.memory });
  }

  get link(): number | undefined {
    return this.#interconnect && this.#link;
  }

  plugged(port: DevicePort): void {
    this.#port = port;
  }

  /** Work that waits ends as if its page could not be had. What the TLB holds is forgotten. */
  reset(): void {
    for (const waiting of this.#waiting.values()) waiting.answer = false;
    this.mmu.faults.length = 0;
  }

  isQuiet(): boolean {
    return this.#waiting.size === 0;
  }

  scrub(): void {
    this.reset();
    this.memory.fill(0);
  }

  setFaulting(space: number, on: boolean): void {
    if (on) this.#faulting.add(space);
    else this.#faulting.delete(space);
  }

  takeFault(): GpuPageFault | undefined {
    for (const waiting of this.#waiting.values())
      if (!waiting.taken) {
        waiting.taken = true;
        return waiting.fault;
      }
    return undefined;
  }

  resume(id: number, isThere: boolean): void {
    const waiting = this.#waiting.get(id);
    if (waiting) waiting.answer ??= isThere;
  }

  *execute(space: number, work: GpuWork): Steps<GpuWorkResult> {
    const kernel = kernelOf(work);
    const bytesOf = (): number => Math.max(0, work.length - kernel.left);
    for (let looks = 0; kernel.left > 0; ) {
      const stop = this.#piece(space, kernel);
      if (!stop) {
        looks = 0;
        yield "a page of work is done";
        continue;
      }
      if (stop.why === "bus") {
        this.counts.busErrors++;
        return { status: "bus", bytes: bytesOf(), at: stop.address };
      }
      if (!this.#faulting.has(space)) return { status: "fault", bytes: bytesOf(), at: stop.address };
      if (++looks > MOST_LOOKS) return { status: "hung", bytes: bytesOf(), at: stop.address };
      if (!(yield* this.#ask(space, stop))) return { status: "fault", bytes: bytesOf(), at: stop.address };
    }
    return { status: "done", bytes: work.length };
  }

  reaches(link: number): boolean {
    return this.#interconnect?.memoryAt(link) !== undefined;
  }

  copyIn(from: DmaAddr, to: number, pages: number): boolean {
    this.counts.copiedPages += pages;
    const isDone = this.#plugged.read(from, this.#own(to, pages));
    if (!isDone) this.counts.busErrors++;
    return isDone;
  }

  copyOut(from: number, to: DmaAddr, pages: number): boolean {
    this.counts.copiedPages += pages;
    const isDone = this.#plugged.write(to, this.#own(from, pages));
    if (!isDone) this.counts.busErrors++;
    return isDone;
  }

  copyAcross(link: number, from: number, to: number, pages: number): boolean {
    const memory = this.#interconnect?.memoryAt(link);
    if (!memory) return false;
    this.counts.copiedPages += pages;
    this.#own(to, pages).set(memory.subarray(from * PAGE_SIZE, (from + pages) * PAGE_SIZE));
    return true;
  }

  clear(first: number, pages: number): void {
    this.#own(first, pages).fill(0);
  }

  /** Puts the question into the queue and waits. False: the page cannot be had. */
  *#ask(space: number, { address, write }: Stop): Steps<boolean> {
    const id = ++this.#faultIds;
    const fault: GpuPageFault = { id, space, address: address - (address % PAGE_SIZE), write };
    const waiting = { fault, answer: undefined as boolean | undefined, taken: false };
    this.#waiting.set(id, waiting);
    this.counts.faults++;
    this.#port?.interrupt(0);
    try {
      yield "a page is asked for"; // whoever waits for questions has one
      while (waiting.answer === undefined) yield WAITING;
      return waiting.answer;
    } finally {
      this.#waiting.delete(id);
    }
  }

  #piece(space: number, kernel: Kernel): Stop | undefined {
    const { mmu, memory } = this;
    const ways = { mmu, memory, interconnect: this.#interconnect, port: this.#plugged };
    const look = (address: number, write: boolean, outcome: AccessOutcome): void => {
      mmu.faults.length = 0; // what the MMU refuses is asked of the driver, once
      if (outcome !== "done") throw new Stop(address, write, outcome);
    };
    const pieces: PieceAccess = {
      read: (address, into) => {
        look(address, false, access(ways, space, address, into, "read"));
        this.counts.kernelBytes += into.length;
      },
      write: (address, from) => {
        look(address, true, access(ways, space, address, from, "write"));
        this.counts.kernelBytes += from.length;
      },
      check: (address) => {
        const isThere = mmu.translate(space, IovaPage.of(address as DmaAddr), "write") >= 0;
        look(address, true, isThere ? "done" : "absent");
      },
    };
    try {
      kernel.piece(pieces);
      return undefined;
    } catch (error) {
      if (error instanceof Stop) return error;
      throw error;
    }
  }

  #own(first: number, pages: number): Uint8Array {
    return this.memory.subarray(first * PAGE_SIZE, (first + pages) * PAGE_SIZE);
  }

  get #plugged(): DevicePort {
    if (!this.#port) throw notPlugged();
    return this.#port;
  }
}
