/**
 * Compare: a recorded load, replayed on a simulated machine under each mapping strategy, and what each one cost.
 *
 * Idea: one machine per strategy, the same requests in the recorded order. A first run moves and checks every byte and
 * counts; timed runs only map and release, the strategies taking turns, and the quickest counts.
 * Promises: counts are a function of the trace, the options and the seed; predicted times are of the counts and the cost
 * model. Times are measured by the caller's clock, and are this program's own.
 */
import type { Requests } from "../analysis/index.ts";
import { Random } from "../base/index.ts";
import { type CostModel, PUBLISHED_COST, predict } from "./cost.ts";
import { Machine, type ReplayMachineOptions, type RunCost } from "./machine.ts";
import { checkReplayOptions, checkRequests, type ReplayOptions, type ReplayProgress } from "./options.ts";
import { type Plan, pagesOf, planOf } from "./plan.ts";
import type { ReplayRequest } from "./request.ts";
import { STRATEGIES, type Strategy } from "./strategies.ts";
import { type Mismatch, Verifier } from "./verifier.ts";

/** On which machine a load is compared, and what it costs there. */
export interface CompareOptions extends ReplayOptions {
  /** A unit that caches absent entries; invalidation is then strict, as in Linux. */
  readonly cachingMode?: boolean;
  /** Longer requests are mapped in pieces of this, bytes, a multiple of 4096. */
  readonly requestCap?: number;
  /** What if each buffer lay in one piece of memory? */
  readonly hugePages?: boolean;
  /** What if the allocator cached ranges up to this many pages? A power of two from 32 to 32768. */
  readonly largestCached?: number;
  /** For the predicted time. */
  readonly cost?: CostModel;
  /** Nanoseconds, for measuring. Without it nothing is timed. */
  readonly nowNs?: () => number;
}

/** What one strategy cost: exact counts, and a predicted time. */
export interface StrategyCost {
  readonly name: Strategy["name"];
  readonly summary: string;
  readonly iovaOps: number;
  /** Nodes that Linux's allocator would have looked at. */
  readonly iovaSteps: number;
  /** Reservations longer than the allocator caches. */
  readonly uncached: number;
  readonly pteWrites: number;
  readonly tablePages: number;
  /** Table memory, the most at any time, bytes. */
  readonly tableBytes: number;
  readonly mapSyncs: number;
  readonly invalidations: number;
  readonly flushQueueEntries: number;
  readonly metadataBytes: number;
  /** Map and unmap calls of a driver in user space. */
  readonly calls: number;
  /** Bytes that the device could reach, the most at any time. */
  readonly reachableBytes: number;
  /** By the cost model: nanoseconds in all. A prediction. */
  readonly predictedNs: number;
  /** Mapping and release, per 4 KiB page mapped, in this program; `undefined` when nothing was timed. */
  readonly nsPerPage: number | undefined;
}

/** What each strategy cost for one load, and whether every byte came out right. */
export interface Comparison {
  readonly requests: number;
  readonly segments: number;
  readonly bytes: number;
  readonly pages: number;
  /** As replayed: `lazy` becomes `strict` in caching mode. */
  readonly mode: "strict" | "lazy";
  /** Distinct pages of memory that the requests touch. */
  readonly distinctPages: number;
  readonly verifiedBytes: number;
  readonly mismatches: number;
  readonly firstMismatch: (Mismatch & { readonly strategy: string }) | undefined;
  /** Requests still mapped at the end, as in the recording. */
  readonly liveAtEnd: number;
  /** Requests of no length, of more than 256 MiB, or outside of what physical addresses can be: not replayed. */
  readonly leftOut: number;
  /** Requests that a direct mapping never unmapped: taken down right after use here. */
  readonly neverUnmapped: number;
  /** Requests that the cap cut, and the pieces they became. */
  readonly cut: number;
  readonly pieces: number;
  /** Requests whose segments do not join: no single range of addresses can hold them. */
  readonly gaps: number;
  readonly cost: CostModel;
  readonly strategies: readonly StrategyCost[];
}

/**
 * Replays `recorded` under every strategy.
 *
 * @throws DmaError ERR_DMA_REPLAY_OPTIONS, ERR_DMA_IOVA_CACHED (EINVAL), before anything is replayed
 */
export function compare(recorded: Requests, options: CompareOptions = {}): Comparison {
  checkRequests(recorded);
  checkReplayOptions(options);
  const {
    iommu = "vtd-second-stage",
    cachingMode = false,
    seed = 1,
    progress = () => {},
    cost = PUBLISHED_COST,
  } = options;
  const { requestCap, hugePages = false, largestCached } = options;
  const mode = cachingMode ? "strict" : (options.mode ?? "strict");
  const machineOptions = { iommu, mode, cachingMode, ...(largestCached !== undefined && { largestCached }) };
  const plan = planOf(recorded, { hugePages, ...(requestCap !== undefined && { requestCap }) });
  let verifiedBytes = 0;
  let mismatches = 0;
  let firstMismatch: Comparison["firstMismatch"];
  const runs = STRATEGIES.map((strategy, i) => {
    progress("replaying", i / STRATEGIES.length, `under ${strategy.name}`);
    const machine = new Machine(machineOptions, true);
    const verifier = new Verifier(machine.memory, machine.engine, Random.fromSeed(seed).fork("bytes"));
    machine.prepare(plan, strategy);
    const run = machine.run(plan, strategy, verifier);
    verifiedBytes += verifier.verifiedBytes;
    mismatches += verifier.mismatches;
    if (verifier.first) firstMismatch ??= { ...verifier.first, strategy: strategy.name };
    return run;
  });
  const pages = plan.loads.reduce((sum, load) => sum + pagesOf(load), 0);
  const nsPerPage = options.nowNs ? time(plan, machineOptions, pages, options.nowNs, progress) : undefined;
  return {
    requests: plan.requests,
    segments: plan.loads.reduce((sum, load) => sum + load.vecs.length, 0),
    bytes: plan.loads.reduce((sum, load) => sum + load.length, 0),
    pages,
    mode,
    distinctPages: distinctPages(plan.loads),
    verifiedBytes,
    mismatches,
    firstMismatch,
    liveAtEnd: plan.liveAtEnd,
    leftOut: plan.leftOut,
    neverUnmapped: plan.neverUnmapped,
    cut: plan.cut,
    pieces: plan.loads.length,
    gaps: plan.loads.filter(({ linear }) => !linear).length,
    cost,
    strategies: STRATEGIES.map((strategy, i) => strategyCost(strategy, runs[i]!, cost, nsPerPage?.[i])),
  };
}

/** A run in the words of the report. */
export function strategyCost(
  { name, summary }: Strategy,
  run: RunCost,
  cost: CostModel,
  nsPerPage: number | undefined,
): StrategyCost {
  const { counters, calls, tablePages, reachableBytes, uncached } = run;
  const counted = {
    iovaOps: counters.iovaAllocations + counters.iovaFrees,
    iovaSteps: counters.iovaSteps,
    pteWrites: counters.pteWrites,
    invalidations: counters.invalidations,
    calls,
  };
  return {
    name,
    summary,
    ...counted,
    uncached,
    tablePages: counters.tablePagesAllocated,
    tableBytes: tablePages * Machine.TABLE_PAGE,
    mapSyncs: counters.mapSyncs,
    flushQueueEntries: counters.flushQueueEntries,
    metadataBytes: counters.metadataBytes,
    reachableBytes,
    predictedNs: predict(counted, cost),
    nsPerPage,
  };
}

/** How many pages are touched at all, by runs, so that it takes no memory for each. */
function distinctPages(loads: readonly ReplayRequest[]): number {
  const runs = loads.flatMap(({ vecs }) =>
    vecs.map(({ phys, length }): [number, number] => [Math.floor(phys / 4096), Math.ceil((phys + length) / 4096)]),
  );
  runs.sort((a, b) => a[0] - b[0]);
  let pages = 0;
  let end = 0;
  for (const [start, stop] of runs) {
    pages += Math.max(0, stop - Math.max(start, end));
    end = Math.max(end, stop);
  }
  return pages;
}

/** Rounds that are always measured, and at most; between them as long as it is not quiet and takes no more than that. */
const ROUNDS = 5;
const MOST_ROUNDS = 15;
const MOST_NS = 5e9;
/** The two quickest rounds of a strategy are this near each other when nothing disturbs. */
const QUIET = 1.05;

/**
 * Nanoseconds per page of each strategy, the strategies taking turns: of its quickest round, since what disturbs only makes it slower.
 * Measured until the two quickest rounds of each agree.
 */
function time(
  plan: Plan,
  options: ReplayMachineOptions,
  pages: number,
  nowNs: () => number,
  progress: ReplayProgress,
): number[] {
  const samples: number[][] = STRATEGIES.map(() => []);
  const isQuiet = (): boolean => samples.every(([first, second]) => second! <= first! * QUIET);
  const startNs = nowNs();
  for (let round = 0; round <= MOST_ROUNDS; round++) {
    if (round > ROUNDS && (isQuiet() || nowNs() - startNs > MOST_NS)) break;
    progress("timing", Math.min(round, ROUNDS) / (ROUNDS + 1), `round ${round}`);
    for (const [i, strategy] of STRATEGIES.entries()) {
      const machine = new Machine(options, false);
      machine.prepare(plan, strategy);
      const start = nowNs();
      machine.run(plan, strategy);
      if (round === 0) continue; // it warms up
      samples[i]!.push((nowNs() - start) / Math.max(pages, 1));
      samples[i]!.sort((a, b) => a - b);
    }
  }
  return samples.map(([quickest]) => quickest!);
}
