/**
 * Compare: a recorded load, replayed on a simulated machine under each mapping strategy, and what each one cost.
 *
 * Idea: one machine per strategy, the same requests in the recorded order. A first run checks every translation, moves and checks
 * bytes, and counts; timed runs only map and release, the strategies taking turns, and the quickest counts.
 * Promises: counts are a function of the trace, the options and the seed; predicted times are of the counts and the cost
 * model. Times are measured by the caller's clock, and are this program's own.
 */
import type { Requests } from "../analysis/index.ts";
import { type IovaPage, Random } from "../base/index.ts";
import { type CostModel, PUBLISHED_COST, predict } from "./cost.ts";
import { Machine, REQUESTER, type ReplayMachineOptions, type RunCost, toItsEnd } from "./machine.ts";
import { checkReplayOptions, checkRequests, type ReplayOptions, type ReplayProgress } from "./options.ts";
import { beginningOf, type Loads, type Plan, pagesOf, planOf } from "./plan.ts";
import type { ReplayRequest } from "./request.ts";
import { STRATEGIES, type Strategy } from "./strategies.ts";
import { TouchedPages } from "./touched-pages.ts";
import { type Mismatch, Verifier } from "./verifier.ts";

/** What is checked besides every translation: the bytes of all requests, of a share of them, of none. */
export type VerifyMode = "all" | "sample" | "translate";

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
  /**
   * Whose bytes are moved and checked: `all`; a `sample` of about 2 GiB; of none, only every translation. Without it all of them
   * where they are no more than that, else a sample.
   */
  readonly verify?: VerifyMode;
  /** For the predicted time. */
  readonly cost?: CostModel;
  /** Nanoseconds, for measuring. Without it nothing is timed. */
  readonly nowNs?: () => number;
}

/** What one strategy cost: exact counts, and a predicted time. */
export interface StrategyCost {
  /** What options and reports call it. */
  readonly name: Strategy["name"];
  /** What it does, in a line. */
  readonly summary: string;
  /** Reservations and releases of addresses. */
  readonly iovaOps: number;
  /** Nodes that Linux's allocator would have looked at. */
  readonly iovaSteps: number;
  /** Reservations longer than the allocator caches. */
  readonly uncached: number;
  /** Entries of page tables set or cleared, pointers included. */
  readonly pteWrites: number;
  /** Table pages allocated, over the whole load. */
  readonly tablePages: number;
  /** Table memory, the most at any time, bytes. */
  readonly tableBytes: number;
  /** Times that new entries were made visible. */
  readonly mapSyncs: number;
  /** IOTLB invalidations, of ranges and of everything. */
  readonly invalidations: number;
  /** Ranges that waited for a flush; 0 in strict mode. */
  readonly flushQueueEntries: number;
  /** Bytes of bookkeeping that a driver has to keep, over the whole load. */
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
  /** Requests replayed. */
  readonly requests: number;
  /** Pieces of memory of all of them. */
  readonly segments: number;
  /** Bytes of all of them. */
  readonly bytes: number;
  /** Pages of 4 KiB that they touch, each as often as it is touched. */
  readonly pages: number;
  /** As replayed: `lazy` becomes `strict` in caching mode. */
  readonly mode: "strict" | "lazy";
  /** Distinct pages of memory that the requests touch. */
  readonly distinctPages: number;
  /** Whose bytes were moved and checked: of all requests, of a share, of none. Of the others every translation was checked. */
  readonly verify: VerifyMode;
  /** That share, 0 to 1. */
  readonly movedShare: number;
  /** Bytes that were moved and checked, in each direction that was, over all strategies. */
  readonly verifiedBytes: number;
  /** Pages whose translation was checked without moving their bytes, over all strategies. */
  readonly translatedPages: number;
  /** Bytes that came out wrong, and accesses that were refused: 0, unless something is broken. */
  readonly mismatches: number;
  /** The first of those. */
  readonly firstMismatch:
    | (Mismatch & {
        /** Under which strategy. */
        readonly strategy: string;
      })
    | undefined;
  /** Requests still mapped at the end, as in the recording. */
  readonly liveAtEnd: number;
  /** Requests of no length, of more than 256 MiB, or outside of what physical addresses can be: not replayed. */
  readonly leftOut: number;
  /** Requests that a direct mapping never unmapped: taken down right after use here. */
  readonly neverUnmapped: number;
  /** Requests that the cap cut. */
  readonly cut: number;
  /** The requests that those became. */
  readonly pieces: number;
  /** Requests whose segments do not join: no single range of addresses can hold them. */
  readonly gaps: number;
  /** The prices of the prediction. */
  readonly cost: CostModel;
  /** Requests that were timed, those that begin first; `undefined` when nothing was. */
  readonly timedRequests: number | undefined;
  /** What each one cost, in the order in which they are always told. */
  readonly strategies: readonly StrategyCost[];
}

/**
 * Replays `recorded` under every strategy.
 *
 * @throws DmaError ERR_DMA_REPLAY_OPTIONS, ERR_DMA_IOVA_CACHED (EINVAL), before anything is replayed
 */
export function compare(recorded: Requests, options: CompareOptions = {}): Comparison {
  return toItsEnd(compareInSteps(recorded, options));
}

/** The same with rests, in which a caller can look at a clock or hear a signal: nothing is replayed meanwhile. */
export function* compareInSteps(recorded: Requests, options: CompareOptions = {}): Generator<void, Comparison> {
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
  const sums = sumsOf(plan.loads);
  const touched = new TouchedPages(plan.loads);
  const moved = { share: shareOf(options.verify, sums.movedBytes * STRATEGIES.length), seed };
  let [verifiedBytes, translatedPages, mismatches] = [0, 0, 0];
  let firstMismatch: Comparison["firstMismatch"];
  const runs: RunCost[] = [];
  for (const [i, strategy] of STRATEGIES.entries()) {
    const machine = new Machine(machineOptions, true);
    const translate = (page: IovaPage, access: "read" | "write"): number =>
      machine.unit.translate(REQUESTER, page, access);
    const random = Random.fromSeed(seed).fork("bytes");
    const verifier = new Verifier(machine.memory, machine.engine, translate, random, moved);
    machine.prepare(touched, strategy);
    const work = machine.steps(plan, strategy, verifier);
    let next = work.next();
    for (; !next.done; next = work.next()) {
      progress("replaying", (i + next.value) / STRATEGIES.length, `under ${strategy.name}`);
      yield;
    }
    runs.push(next.value);
    verifiedBytes += verifier.verifiedBytes;
    translatedPages += verifier.translatedPages;
    mismatches += verifier.mismatches;
    if (verifier.first) firstMismatch ??= { ...verifier.first, strategy: strategy.name };
  }
  const timed = options.nowNs ? yield* time(plan, machineOptions, options.nowNs, progress) : undefined;
  return {
    requests: plan.requests,
    segments: sums.segments,
    bytes: sums.bytes,
    pages: sums.pages,
    mode,
    distinctPages: touched.count,
    verify: moved.share >= 1 ? "all" : moved.share > 0 ? "sample" : "translate",
    movedShare: moved.share,
    verifiedBytes,
    translatedPages,
    mismatches,
    firstMismatch,
    liveAtEnd: plan.liveAtEnd,
    leftOut: plan.leftOut,
    neverUnmapped: plan.neverUnmapped,
    cut: plan.cut,
    pieces: plan.loads.length,
    gaps: sums.gaps,
    cost,
    timedRequests: timed?.requests,
    strategies: STRATEGIES.map((strategy, i) => strategyCost(strategy, runs[i]!, cost, timed?.nsPerPage[i])),
  };
}

/** What the loads come to; `movedBytes`: what a device moves of them, each way that they go. */
function sumsOf(loads: Loads) {
  let [segments, bytes, pages, gaps, movedBytes] = [0, 0, 0, 0, 0];
  for (const load of loads) {
    segments += load.vecs.length;
    bytes += load.length;
    pages += pagesOf(load);
    if (!load.linear) gaps++;
    movedBytes += load.length * (load.direction === "bidirectional" ? 2 : 1);
  }
  return { segments, bytes, pages, gaps, movedBytes };
}

/** Bytes that are moved at most unless all are asked for: a few seconds. */
const MOST_MOVED = 2 * 2 ** 30;

/** The share of requests whose bytes are moved, of `bytes` in all. */
function shareOf(verify: CompareOptions["verify"], bytes: number): number {
  if (verify === "translate") return 0;
  return verify === "all" || bytes <= MOST_MOVED ? 1 : MOST_MOVED / bytes;
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

/** Rounds that are always measured, and at most; between them as long as it is not quiet and takes no more than that. */
const ROUNDS = 5;
const MOST_ROUNDS = 15;
const MOST_NS = 2e9;
/** The two quickest rounds of a strategy are this near each other when nothing disturbs. */
const QUIET = 1.05;

/** Pages that are timed at most: the beginning of a longer load is as good. */
const TIMED_PAGES = 60_000;

/**
 * Nanoseconds per page of each strategy, the strategies taking turns: of its quickest round, since what disturbs only makes it slower.
 * Measured until the two quickest rounds of each agree, on the requests that begin first.
 */
function* time(
  whole: Plan,
  options: ReplayMachineOptions,
  nowNs: () => number,
  progress: ReplayProgress,
): Generator<void, { readonly nsPerPage: readonly number[]; readonly requests: number }> {
  let [pages, requests, steps] = [0, 0, 0];
  const timedLoads: ReplayRequest[] = [];
  for (; steps < whole.order.length && pages < TIMED_PAGES; steps++) {
    const step = whole.order[steps]!;
    if (step < 0) continue;
    const load = whole.loads.at(step);
    timedLoads.push(load);
    pages += pagesOf(load);
    requests++;
  }
  const plan = beginningOf(whole, steps);
  const touched = new TouchedPages(timedLoads);
  const samples: number[][] = STRATEGIES.map(() => []);
  const isQuiet = (): boolean => samples.every(([first, second]) => second! <= first! * QUIET);
  const startNs = nowNs();
  for (let round = 0; round <= MOST_ROUNDS; round++) {
    if (round > ROUNDS && (isQuiet() || nowNs() - startNs > MOST_NS)) break;
    progress("timing", Math.min(round, ROUNDS) / (ROUNDS + 1), `round ${round}`);
    for (const [i, strategy] of STRATEGIES.entries()) {
      const machine = new Machine(options, false);
      machine.prepare(touched, strategy);
      const start = nowNs();
      machine.run(plan, strategy);
      const spent = nowNs() - start;
      yield;
      if (round === 0) continue; // it warms up
      samples[i]!.push(spent / Math.max(pages, 1));
      samples[i]!.sort((a, b) => a - b);
    }
  }
  return { nsPerPage: samples.map(([quickest]) => quickest!), requests };
}
