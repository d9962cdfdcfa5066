/**
 * Compare: a recorded load, replayed on a simulated machine under each mapping strategy, and what each one cost.
 *
 * Idea: one machine per strategy, the same requests in the recorded order. A first run moves and checks every byte and
 * counts; timed runs only map and release, the strategies taking turns, and the median counts.
 * Promises: counts are a function of the trace, the options and the seed. Times are measured by the caller's clock.
 * Not for: predicting another machine's time.
 */

import type { Direction, Request, Requests } from "../analysis/index.ts";
import { type Counters, pagesTouched, Random } from "../base/index.ts";
import { Dma } from "../dma/index.ts";
import { DmaEngine, SimulatedMemory, SimulatedUnit, VirtualClock } from "../hosts/simulated/index.ts";
import { IommuDomain } from "../iommu/index.ts";
import { amdV1, type TableLayout, vtdSecondStage, x86_64 } from "../layouts/pagetable/index.ts";
import { type Load, loadOf, type MappedLoad, STRATEGIES, type Strategy } from "./strategies.ts";
import { type Mismatch, Verifier } from "./verifier.ts";

export type IommuKind = "vtd" | "x86-64" | "amdv1";
export const IOMMU_KINDS: readonly IommuKind[] = ["vtd", "x86-64", "amdv1"];

export interface CompareOptions {
  readonly iommu?: IommuKind;
  readonly mode?: "strict" | "lazy";
  readonly seed?: number;
  /** Nanoseconds, for measuring. Without it nothing is timed. */
  readonly nowNs?: () => number;
  /** Told what is going on, for a progress line. */
  readonly progress?: (message: string) => void;
}

export interface StrategyCost {
  readonly name: Strategy["name"];
  readonly summary: string;
  readonly iovaOps: number;
  /** Nodes that Linux's allocator would have looked at. */
  readonly iovaSteps: number;
  readonly pteWrites: number;
  readonly tablePages: number;
  readonly mapSyncs: number;
  readonly invalidations: number;
  readonly flushQueueEntries: number;
  readonly metadataBytes: number;
  /** Mapping and release, per 4 KiB page mapped; `undefined` when nothing was timed. */
  readonly nsPerPage: number | undefined;
}

export interface Comparison {
  readonly requests: number;
  readonly segments: number;
  readonly bytes: number;
  readonly pages: number;
  readonly verifiedBytes: number;
  readonly mismatches: number;
  readonly firstMismatch: (Mismatch & { readonly strategy: string }) | undefined;
  /** Requests still mapped at the end, as in the recording. */
  readonly liveAtEnd: number;
  /** Requests of no length, of more than 256 MiB, or outside of what physical addresses can be: not replayed. */
  readonly leftOut: number;
  /** Requests that a direct mapping never unmapped: taken down right after use here. */
  readonly neverUnmapped: number;
  readonly strategies: readonly StrategyCost[];
}

const LAYOUTS: Readonly<Record<IommuKind, () => TableLayout>> = {
  vtd: () => vtdSecondStage(),
  "x86-64": () => x86_64(),
  amdv1: () => amdV1(),
};

/** What is done at one step of the replay: `id` begins a request, `~id` ends it. */
interface Plan {
  readonly loads: readonly Load[];
  readonly order: readonly number[];
  /** The replay ends these at once: the recording has no end for them because none was needed. */
  readonly atOnce: ReadonlySet<number>;
  readonly startMs: readonly number[];
}

/** Replays `requests` under every strategy. */
export function compare(recorded: Requests, options: CompareOptions = {}): Comparison {
  const { mode = "strict", iommu = "vtd", seed = 1, progress = () => {} } = options;
  const plan = planOf(recorded);
  let verifiedBytes = 0;
  let mismatches = 0;
  let firstMismatch: Comparison["firstMismatch"];
  const counted = STRATEGIES.map((strategy) => {
    progress(`replaying under ${strategy.name}`);
    const machine = new Machine(LAYOUTS[iommu](), mode, true);
    const verifier = new Verifier(machine.memory, machine.engine, Random.fromSeed(seed).fork("bytes"));
    const counters = machine.run(plan, strategy, verifier);
    verifiedBytes += verifier.verifiedBytes;
    mismatches += verifier.mismatches;
    if (verifier.first) firstMismatch ??= { ...verifier.first, strategy: strategy.name };
    return counters;
  });
  const pages = plan.loads.reduce((sum, load) => sum + pagesOf(load), 0);
  const nsPerPage = options.nowNs ? time(plan, mode, iommu, pages, options.nowNs, progress) : undefined;
  return {
    requests: plan.loads.length,
    segments: plan.loads.reduce((sum, load) => sum + load.vecs.length, 0),
    bytes: plan.loads.reduce((sum, load) => sum + load.length, 0),
    pages,
    verifiedBytes,
    mismatches,
    firstMismatch,
    liveAtEnd: plan.loads.length - plan.atOnce.size - plan.order.filter((step) => step < 0).length,
    leftOut: recorded.requests.length - plan.loads.length,
    neverUnmapped: plan.atOnce.size,
    strategies: STRATEGIES.map((strategy, i) => ({
      name: strategy.name,
      summary: strategy.summary,
      iovaOps: counted[i]!.iovaAllocations + counted[i]!.iovaFrees,
      iovaSteps: counted[i]!.iovaSteps,
      pteWrites: counted[i]!.pteWrites,
      tablePages: counted[i]!.tablePagesAllocated,
      mapSyncs: counted[i]!.mapSyncs,
      invalidations: counted[i]!.invalidations,
      flushQueueEntries: counted[i]!.flushQueueEntries,
      metadataBytes: counted[i]!.metadataBytes,
      nsPerPage: nsPerPage?.[i],
    })),
  };
}

function planOf({ requests, order }: Requests): Plan {
  const used = requests.filter(isReplayable);
  const index = new Map(used.map((request, i) => [request.id, i]));
  const steps: number[] = [];
  for (const step of order) {
    const at = index.get(step < 0 ? ~step : step);
    if (at !== undefined) steps.push(step < 0 ? ~at : at);
  }
  return {
    loads: used.map(({ segments, direction }) => loadOf(segments, direction as Direction)),
    order: steps,
    atOnce: new Set(used.flatMap((request, i) => (request.endNs === undefined && !request.translated ? [i] : []))),
    startMs: used.map(({ startNs }) => startNs / 1e6),
  };
}

const LARGEST_REQUEST = 2 ** 28;
const END_OF_MEMORY = 2 ** 51;

/** A trace may say anything: what cannot be memory, or would take minutes to move, is left out, and counted. */
const isReplayable = ({ segments, length }: Request): boolean =>
  segments.length > 0 &&
  length <= LARGEST_REQUEST &&
  segments.every(
    (segment) => segment.length > 0 && segment.phys >= 0 && segment.phys + segment.length <= END_OF_MEMORY,
  );

const pagesOf = (load: Load): number =>
  load.vecs.reduce((sum, { phys, length }) => sum + pagesTouched(phys, length), 0);

/** A machine with one device behind an IOMMU. */
class Machine {
  readonly memory = new SimulatedMemory();
  readonly engine: DmaEngine;
  readonly #unit = new SimulatedUnit();
  readonly #clock = new VirtualClock();
  readonly #domain: IommuDomain;
  readonly #dma: Dma;

  constructor(layout: TableLayout, mode: "strict" | "lazy", countSteps: boolean) {
    this.#domain = new IommuDomain({ layout, unit: this.#unit, clock: this.#clock, mode, countSteps });
    this.#unit.attach(0x100, this.#domain.tables);
    this.engine = new DmaEngine(0x100, this.#unit, this.memory);
    this.#dma = new Dma({ domain: this.#domain, maxSegmentSize: 2 ** 32 - 1 });
  }

  /** Runs `plan`; what it cost, the teardown of what the recording left mapped not counted. */
  run(plan: Plan, strategy: Strategy, verifier?: Verifier): Counters {
    const { counters } = this.#domain;
    const before = counters.snapshot();
    const live = new Map<number, MappedLoad>();
    for (const step of plan.order) {
      if (step < 0) {
        live.get(~step)?.release();
        live.delete(~step);
        continue;
      }
      this.#clock.advanceTo(plan.startMs[step]!);
      const load = plan.loads[step]!;
      const mapped = strategy.map(this.#dma, load);
      verifier?.check(step, load, mapped);
      if (plan.atOnce.has(step)) mapped.release();
      else live.set(step, mapped);
    }
    const cost = counters.since(before);
    for (const mapped of live.values()) mapped.release();
    return cost;
  }
}

const ROUNDS = 5;

/** Median nanoseconds per page of each strategy, the strategies taking turns. */
function time(
  plan: Plan,
  mode: "strict" | "lazy",
  iommu: IommuKind,
  pages: number,
  nowNs: () => number,
  progress: (message: string) => void,
): number[] {
  const samples: number[][] = STRATEGIES.map(() => []);
  for (let round = 0; round <= ROUNDS; round++) {
    progress(`timing, round ${round} of ${ROUNDS}`);
    for (const [i, strategy] of STRATEGIES.entries()) {
      const machine = new Machine(LAYOUTS[iommu](), mode, false);
      const start = nowNs();
      machine.run(plan, strategy);
      if (round > 0) samples[i]!.push((nowNs() - start) / Math.max(pages, 1)); // round 0 warms up
    }
  }
  return samples.map((times) => times.sort((a, b) => a - b)[times.length >> 1]!);
}
