/**
 * A run of GPUs in a process: eight threads use, move, unmap and fork their memory at once, in an order that chance picks.
 *
 * Oracles: after each barrier every byte is what a shadow says, in RAM or in a GPU (bytes, poison); after each step what a GPU may use of a page is
 * what the process has there (teardown, trust); work that meets memory that is not there ends exactly there; nobody waits for ever; the IOMMU
 * refuses nothing; and all is given back at the end (leak). Threads change only what is their own; moves, evictions and forks concern all.
 */
import { DmaError, PAGE_SIZE, Random } from "../../base/index.ts";
import { type GpuWork, type Steps, UserAddr, WAITING } from "../../platform/index.ts";
import { isPoison } from "../bytes.ts";
import { Broken, type RunOptions, type RunResult, violationOf } from "../scenario.ts";
import { type GpuPlan, type GpuStep, POINTER, THREADS } from "./plan.ts";
import { type Thread, together } from "./together.ts";
import { GpuWorld } from "./world.ts";

/** What a run has cost: for figures. */
export interface GpuRunCounts {
  /** Page faults of GPUs, pages linked for the bus, and bytes of these for pages to which nothing had happened. */
  readonly faults: number;
  readonly linkedPages: number;
  readonly relinkedBytes: number;
  /** Pages that moved to GPUs and back. */
  readonly movedIn: number;
  readonly movedOut: number;
  readonly evictions: number;
  /** Invalidations of the IOMMU, and of GPUs' own TLBs. */
  readonly iommuInvalidations: number;
  readonly gpuInvalidations: number;
  /** Entries of the IOMMU written. */
  readonly leavesWritten: number;
}

/** Runs a plan. */
export function runGpu(plan: GpuPlan, options: RunOptions = {}, counted?: (counts: GpuRunCounts) => void): RunResult {
  const run = new Run(plan, options);
  let step = 0;
  try {
    for (; step < plan.steps.length; ) step += run.batch(step);
    run.end();
    counted?.(run.counts());
    return { events: run.events, violation: undefined, bytesMoved: run.bytesMoved };
  } catch (error) {
    return {
      events: run.events,
      violation: violationOf(error, Math.min(step + run.begun, plan.steps.length)),
      bytesMoved: run.bytesMoved,
    };
  }
}

/** What a thread knows of its own memory. */
interface Own {
  readonly bytes: Uint8Array;
  readonly mapped: Uint8Array;
  readonly writable: Uint8Array;
}

class Run {
  events = 0;
  bytesMoved = 0;
  /** Steps of the batch under way. */
  begun = 0;
  readonly #world: GpuWorld;
  readonly #plan: GpuPlan;
  readonly #order: Random;
  readonly #own: readonly Own[];

  constructor(plan: GpuPlan, options: RunOptions) {
    this.#plan = plan;
    this.#world = new GpuWorld(plan, options);
    this.#order = Random.fromSeed(plan.seed).fork("order of steps");
    this.#own = Array.from({ length: THREADS + 1 }, (_, thread) => {
      const pages = this.#world.pagesOf(thread);
      const all = (): Uint8Array => new Uint8Array(pages).fill(1);
      return { bytes: new Uint8Array(pages * PAGE_SIZE), mapped: all(), writable: all() };
    });
  }

  /** Runs the steps from `first` on that are of different threads, at once. How many. */
  batch(first: number): number {
    const { steps } = this.#plan;
    const batch: GpuStep[] = [];
    const busy = new Set<number>();
    for (let i = first; i < steps.length && !busy.has(steps[i]!.thread); i++) {
      busy.add(steps[i]!.thread);
      batch.push(steps[i]!);
    }
    this.begun = batch.length - 1;
    const threads: Thread[] = batch.map((step) => ({ name: `thread ${step.thread}`, steps: this.#steps(step) }));
    for (const { device, model } of this.#world.gpus)
      threads.push({ name: `driver of ${model.name}`, steps: serve(device), isService: true });
    together(this.#order, threads, () => this.#glance());
    this.events += batch.length;
    this.#barrier(batch);
    this.begun = 0;
    return batch.length;
  }

  end(): void {
    const bytes = new Uint8Array(PAGE_SIZE);
    for (let thread = 0; thread <= THREADS; thread++)
      for (let page = 0; page < this.#world.pagesOf(thread); page++) {
        if (!this.#own[thread]!.mapped[page]) continue;
        this.#world.process.memory.read(this.#world.at(thread, page), bytes);
        this.#compare(thread, page, bytes);
      }
    const left = this.#world.end();
    if (left.length > 0) throw new Broken("leak", `at the end: ${left.join("; ")}`);
  }

  counts(): GpuRunCounts {
    const sum = { faults: 0, linkedPages: 0, relinkedBytes: 0, movedIn: 0, movedOut: 0, evictions: 0 };
    const tlbs = { iommuInvalidations: 0, gpuInvalidations: 0, leavesWritten: 0 };
    for (const { space, memory, dma } of this.#world.gpus) {
      sum.faults += space.counts.faults;
      sum.linkedPages += space.counts.linkedPages;
      sum.relinkedBytes += space.counts.relinkedBytes;
      sum.movedIn += memory.counts.movedIn;
      sum.movedOut += memory.counts.movedOut;
      sum.evictions += memory.counts.evictions;
      tlbs.iommuInvalidations += dma.counters.invalidations;
      tlbs.leavesWritten += dma.counters.leavesWritten;
      tlbs.gpuInvalidations += space.table.counters.invalidations;
    }
    return { ...sum, ...tlbs };
  }

  *#steps(step: GpuStep): Steps<void> {
    const { memory } = this.#world.process;
    const own = this.#own[step.thread]!;
    const address = "page" in step ? this.#world.at(step.thread, step.page) : UserAddr(0);
    switch (step.do) {
      case "GPU writes":
      case "GPU adds":
      case "GPU copies":
        return yield* this.#gpuWorks(step);
      case "CPU writes":
      case "CPU reads":
        return yield* this.#cpu(step);
      case "unmap":
        yield* memory.unmapSteps(address, step.pages * PAGE_SIZE);
        own.mapped.fill(0, step.page, step.page + step.pages);
        own.bytes.fill(0, step.page * PAGE_SIZE, (step.page + step.pages) * PAGE_SIZE);
        return;
      case "map":
        return yield* this.#map(step.thread, step.page, step.pages);
      case "drop":
        return yield* this.#eachRun(
          step,
          own.mapped,
          function* (from, length) {
            yield* memory.adviseSteps(from, length, "dontneed");
          },
          (page) => own.bytes.fill(0, page * PAGE_SIZE, (page + 1) * PAGE_SIZE),
        );
      case "forbid writing":
      case "allow writing": {
        const isAllowed = step.do === "allow writing";
        return yield* this.#eachRun(
          step,
          own.mapped,
          function* (from, length) {
            yield* memory.protectSteps(from, length, isAllowed ? "rw" : "r");
          },
          (page) => own.writable.fill(isAllowed ? 1 : 0, page, page + 1),
        );
      }
      case "move to GPU":
        return yield* this.#refusing(
          this.#gpuOf(step.thread).memory.moveIn(memory, address, address + step.pages * PAGE_SIZE),
        );
      case "evict": {
        const gpu = this.#gpuOf(step.thread).memory;
        const [oldest] = gpu.allocations;
        if (oldest) yield* this.#refusing(gpu.evictSteps(oldest));
        return;
      }
      case "fork": {
        const child = yield* this.#world.process.forkSteps();
        const page = Math.floor(this.#order.below(this.#world.pagesOf(step.thread)));
        yield* child.memory.touchSteps(this.#world.at(step.thread, page), true);
        yield* child.exitSteps();
      }
    }
  }

  #gpuOf(thread: number): GpuWorld["gpus"][number] {
    return this.#world.gpus[thread === POINTER ? 0 : thread % this.#world.gpus.length]!;
  }

  *#gpuWorks(step: GpuStep & { readonly do: "GPU writes" | "GPU adds" | "GPU copies" }): Steps<void> {
    const { space } = this.#gpuOf(step.thread);
    const { bytes, mapped, writable } = this.#own[step.thread]!;
    const [from, length] = [this.#world.at(step.thread, step.page), step.pages * PAGE_SIZE];
    const target = step.do === "GPU copies" ? step.to : step.page;
    const work: GpuWork =
      step.do === "GPU writes"
        ? { do: "fill", to: from, length, seed: step.seed }
        : step.do === "GPU adds"
          ? { do: "add", to: from, length, value: step.value }
          : { do: "copy", from, to: this.#world.at(step.thread, target), length };
    const { status, bytes: done } = yield* space.executeSteps(work);
    let good = 0;
    while (good < step.pages && mapped[step.page + good] && mapped[target + good] && writable[target + good]) good++;
    // An object that goes whole comes back whole or not at all: what stops it may be any page of it.
    const isWhole = step.thread === POINTER && this.#plan.config.wholePointer;
    if (isWhole && status === "fault") good = Math.min(good, done / PAGE_SIZE);
    const expected = good === step.pages ? "done" : "fault";
    if (status !== expected || done !== good * PAGE_SIZE)
      throw new Broken(
        "trust",
        `work of ${step.pages} pages ended with ${status} after ${done} bytes, where ${good} pages are there (${[...this.#gpuOf(step.thread).device.refusals.keys()].join(", ")})`,
      );
    for (let i = 0; i < good; i++) change(step, bytes, step.page + i, target + i, i);
    this.bytesMoved += done;
  }

  *#cpu(step: GpuStep & { readonly do: "CPU writes" | "CPU reads" }): Steps<void> {
    const { memory } = this.#world.process;
    const { bytes, mapped, writable } = this.#own[step.thread]!;
    const isWrite = step.do === "CPU writes";
    const page = new Uint8Array(PAGE_SIZE);
    for (let i = step.page; i < step.page + step.pages; i++) {
      const address = this.#world.at(step.thread, i);
      const expected = !mapped[i] ? "no-area" : isWrite && !writable[i] ? "no-permission" : "done";
      const outcome = yield* memory.touchSteps(address, isWrite);
      if (outcome !== expected) throw new Broken("bytes", `the CPU got ${outcome} at page ${i}, not ${expected}`);
      if (outcome !== "done") continue;
      if (isWrite) {
        for (let j = 0; j < PAGE_SIZE; j++) page[j] = (step.seed + 3 * i + j) % 253;
        memory.write(address, page);
        bytes.set(page, i * PAGE_SIZE);
      } else {
        memory.read(address, page);
        this.#compare(step.thread, i, page);
      }
    }
  }

  /** Maps what is not mapped; what is new may be written. */
  *#map(thread: number, first: number, pages: number): Steps<void> {
    const { mapped, writable } = this.#own[thread]!;
    for (let i = first; i < first + pages; ) {
      if (mapped[i]) {
        i++;
        continue;
      }
      const from = i;
      while (i < first + pages && !mapped[i]) i++;
      yield* this.#world.process.memory.mapSteps({
        address: this.#world.at(thread, from),
        length: (i - from) * PAGE_SIZE,
      });
      mapped.fill(1, from, i);
      writable.fill(1, from, i);
    }
  }

  /** Does something to each run of mapped pages of a step, and notes each page. */
  *#eachRun(
    step: { readonly thread: number; readonly page: number; readonly pages: number },
    mapped: Uint8Array,
    work: (from: UserAddr, length: number) => Steps<void>,
    note: (page: number) => unknown,
  ): Steps<void> {
    for (let i = step.page; i < step.page + step.pages; ) {
      const from = i;
      while (i < step.page + step.pages && mapped[i]) i++;
      if (i > from) yield* work(this.#world.at(step.thread, from), (i - from) * PAGE_SIZE);
      for (let page = from; page < i; page++) note(page);
      i = Math.max(i, from + 1);
    }
  }

  /** What is refused with a reason has not happened. */
  *#refusing(steps: Steps<unknown>): Steps<void> {
    try {
      yield* steps;
    } catch (error) {
      if (!(error instanceof DmaError) || !error.code.startsWith("ERR_DMA_GPU")) throw error;
    }
  }

  /** One page, after each step. */
  #glance(): void {
    const thread = this.#order.below(THREADS + 1);
    this.#world.checkPage(this.#world.at(thread, this.#order.below(this.#world.pagesOf(thread))));
  }

  /** Nobody is at work: everything is looked at that the steps may have changed. */
  #barrier(batch: readonly GpuStep[]): void {
    const bytes = new Uint8Array(PAGE_SIZE);
    for (const step of batch) {
      const isSmall = this.#world.pagesOf(step.thread) <= 128;
      const [first, pages] =
        isSmall || !("page" in step) ? [0, isSmall ? this.#world.pagesOf(step.thread) : 0] : [step.page, step.pages];
      for (let page = first; page < first + pages; page++) {
        const address = this.#world.at(step.thread, page);
        this.#world.checkPage(address);
        if (this.#world.peek(address, bytes)) this.#compare(step.thread, page, bytes);
        else this.#compare(step.thread, page, new Uint8Array(PAGE_SIZE));
      }
    }
    if (batch.some(({ thread }) => thread === POINTER)) this.#world.checkPointer();
  }

  #compare(thread: number, page: number, found: Uint8Array): void {
    const expected = this.#own[thread]!.bytes.subarray(page * PAGE_SIZE, (page + 1) * PAGE_SIZE);
    let at = 0;
    while (at < PAGE_SIZE && found[at] === expected[at]) at++;
    if (at === PAGE_SIZE) return;
    const oracle = isPoison(found, at) ? "poison" : "bytes";
    throw new Broken(
      oracle,
      `page ${page} of thread ${thread} has ${found[at]} at byte ${at}, where ${expected[at]} was written`,
    );
  }
}

/** Answers page faults as they come. */
function* serve(device: GpuWorld["gpus"][number]["device"]): Steps<void> {
  for (;;) yield (yield* device.serveSteps()) > 0 ? "page faults are answered" : WAITING;
}

/** What a step makes of a page of the shadow. */
function change(step: GpuStep, bytes: Uint8Array, from: number, to: number, index: number): void {
  const page = bytes.subarray(to * PAGE_SIZE, (to + 1) * PAGE_SIZE);
  if (step.do === "GPU copies") page.set(bytes.subarray(from * PAGE_SIZE, (from + 1) * PAGE_SIZE));
  else if (step.do === "GPU writes")
    for (let i = 0; i < PAGE_SIZE; i++) page[i] = (step.seed + index * PAGE_SIZE + i) % 251;
  else if (step.do === "GPU adds") {
    const words = new DataView(page.buffer, page.byteOffset, PAGE_SIZE);
    for (let i = 0; i < PAGE_SIZE; i += 4) words.setUint32(i, (words.getUint32(i, true) + step.value) >>> 0, true);
  }
}
