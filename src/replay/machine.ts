/**
 * The machine that a plan is replayed on: memory, one device, an IOMMU with its tables.
 *
 * A run that checks bytes also watches the allocator; a run that is timed does neither.
 */
import { type Counters, type Observer, PAGE_SIZE } from "../base/index.ts";
import { Dma } from "../dma/index.ts";
import { DmaEngine, SimulatedMemory, SimulatedUnit, VirtualClock } from "../hosts/simulated/index.ts";
import { DmaDomain } from "../iommu/index.ts";
import { type FormatName, layoutNamed } from "../layouts/pagetable/index.ts";
import { type Plan, pagesOf } from "./plan.ts";
import type { MappedLoad, Strategy } from "./strategies.ts";
import type { TouchedPages } from "./touched-pages.ts";
import type { Verifier } from "./verifier.ts";

export interface ReplayMachineOptions {
  readonly iommu: FormatName;
  readonly mode: "strict" | "lazy";
  /** The unit remembers absent entries too, as those of virtual machines do: each map sync is an invalidation as well. */
  readonly cachingMode: boolean;
  /** Granules up to which the allocator caches ranges; Linux's 32 unless said. */
  readonly largestCached?: number;
}

/** What a run cost. */
export interface RunCost {
  readonly counters: Counters;
  readonly calls: number;
  /** The most at any time. */
  readonly tablePages: number;
  /** Bytes that the device could reach, whole pages, the most at any time; 0 for what is mapped a request in a timed run. */
  readonly reachableBytes: number;
  /** Reservations longer than the allocator caches. */
  readonly uncached: number;
}

/** Counts reservations that are too long for the allocator's cache. */
class Watcher implements Observer {
  uncached = 0;
  readonly #largest: number;

  constructor(largest: number) {
    this.#largest = largest;
  }

  iovaAllocated(pages: number): void {
    if (pages > this.#largest) this.uncached++;
  }
}

const LARGEST_CACHED_BY_LINUX = 32;
/** What a work with rests comes to, without them. */
export function toItsEnd<T>(work: Generator<unknown, T>): T {
  let next = work.next();
  while (!next.done) next = work.next();
  return next.value;
}

/** The device's name on the bus. */
export const REQUESTER = 0x100;
/** Steps after which a run says how far it is. */
const TOLD_EVERY = 4096;

export class Machine {
  readonly memory: SimulatedMemory = new SimulatedMemory();
  readonly engine: DmaEngine;
  readonly unit: SimulatedUnit;
  readonly #clock = new VirtualClock();
  readonly #domain: DmaDomain;
  readonly #dma: Dma;
  readonly #watcher: Watcher | undefined;
  readonly #before: Counters;
  #standing: ReturnType<NonNullable<Strategy["prepare"]>> | undefined;

  /** `watched`: counts the allocator's steps and its long reservations, which takes time. */
  constructor(options: ReplayMachineOptions, watched: boolean) {
    const { iommu, mode, cachingMode, largestCached } = options;
    const unit = new SimulatedUnit({ cachingMode });
    this.unit = unit;
    this.#watcher = watched ? new Watcher(largestCached ?? LARGEST_CACHED_BY_LINUX) : undefined;
    this.#domain = new DmaDomain({
      layout: layoutNamed(iommu),
      unit,
      clock: this.#clock,
      mode,
      countSteps: watched,
      ...(this.#watcher && { observer: this.#watcher }),
      ...(largestCached !== undefined && { largestCached }),
    });
    unit.attach(REQUESTER, this.#domain.tables);
    this.engine = new DmaEngine(REQUESTER, unit, this.memory);
    this.#dma = new Dma({ domain: this.#domain, maxSegmentSize: 2 ** 32 - 1 });
    this.#before = this.#domain.counters.snapshot();
  }

  /** What comes before the first request. */
  prepare(touched: TouchedPages, strategy: Strategy): void {
    this.#standing = strategy.prepare?.(this.#dma, touched);
  }

  /** Runs `plan`, after {@link prepare}; what both cost, the teardown of what the recording left mapped not counted. */
  run(plan: Plan, strategy: Strategy, verifier?: Verifier): RunCost {
    return toItsEnd(this.steps(plan, strategy, verifier));
  }

  /** The same, with a rest every few thousand steps: the share that is done. */
  *steps(plan: Plan, strategy: Strategy, verifier?: Verifier): Generator<number, RunCost> {
    let until = TOLD_EVERY;
    const { counters } = this.#domain;
    const live = new Map<number, { readonly mapped: MappedLoad; readonly bytes: number }>();
    const standing = this.#standing;
    const watched = this.#watcher !== undefined;
    let calls = standing?.calls ?? 0;
    let reachable = 0;
    let mostReachable = standing?.bytes ?? 0;
    let tablePages = this.#domain.tablePages;
    const { order } = plan;
    for (let at = 0; at < order.length; at++) {
      const step = order[at]!;
      if (at === until) {
        yield at / order.length;
        until += TOLD_EVERY;
      }
      if (step < 0) {
        const ended = live.get(~step);
        if (ended === undefined) continue;
        ended.mapped.release();
        live.delete(~step);
        reachable -= ended.bytes;
        continue;
      }
      this.#clock.advanceTo(plan.startMs[step]!);
      const load = plan.loads.at(step);
      const mapped = strategy.map(this.#dma, load);
      calls += mapped.calls;
      tablePages = Math.max(tablePages, this.#domain.tablePages);
      verifier?.check(step, load, mapped);
      const bytes = watched ? pagesOf(load) * PAGE_SIZE : 0;
      if (standing === undefined) mostReachable = Math.max(mostReachable, reachable + bytes);
      if (plan.atOnce.has(step)) mapped.release();
      else {
        live.set(step, { mapped, bytes });
        reachable += bytes;
      }
    }
    const cost = counters.since(this.#before);
    for (const { mapped } of live.values()) mapped.release();
    const { uncached = 0 } = this.#watcher ?? {};
    return { counters: cost, calls, tablePages, reachableBytes: mostReachable, uncached };
  }

  /** Bytes of a table page. */
  static readonly TABLE_PAGE: number = PAGE_SIZE;
}
