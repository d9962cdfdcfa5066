/**
 * A recorded load as real NVMe commands: the driver, a simulated controller, an IOMMU with tables between them, every byte checked.
 *
 * Idea: a request is sent when the recorded one began, and its command takes as long as the recorded one took, so that as many
 * are under way at once as were then. The driver splits, maps and describes it as it does for any user; what it did is read
 * from its own counters, and from the controller's. Requests of which the recording does not say which way they went are
 * written; a second run reads them instead, which is checked and not counted.
 * Promises: counts are a function of the trace, the options and the seed. Bringing the controller up and shutting it down is
 * not in them. Not for: how fast a disk is.
 */
import type { Requests } from "../analysis/index.ts";
import { PAGE_SIZE } from "../base/index.ts";
import { type CompareOptions, type StrategyCost, strategyCost } from "./compare.ts";
import { PUBLISHED_COST, predict } from "./cost.ts";
import { Machine, type ReplayMachineOptions } from "./machine.ts";
import type { NvmeMismatch } from "./nvme-bytes.ts";
import { type LeftOut, nvmeLoadOf } from "./nvme-load.ts";
import { type NvmeOutcome, NvmeRun } from "./nvme-run.ts";
import { checkReplayOptions, checkRequests } from "./options.ts";
import type { Plan } from "./plan.ts";
import type { ReplayRequest } from "./request.ts";
import { STRATEGIES, type StrategyName } from "./strategies.ts";
import { TouchedPages } from "./touched-pages.ts";

/** How a load is sent to the disk. */
export type NvmeReplayOptions = Omit<CompareOptions, "nowNs">;

/** What mapping for the commands cost: those columns of {@link StrategyCost} that a driver has. */
export type NvmeCost = Pick<
  StrategyCost,
  | "iovaOps"
  | "iovaSteps"
  | "pteWrites"
  | "mapSyncs"
  | "invalidations"
  | "flushQueueEntries"
  | "metadataBytes"
  | "predictedNs"
>;

/** A load as NVMe commands: what the driver and the disk did for it. */
export interface NvmeReplay {
  /** Requests replayed. */
  readonly requests: number;
  /** Bytes of all of them. */
  readonly bytes: number;
  /** Requests that no NVMe command can be, by reason. */
  readonly leftOut: LeftOut;
  /** Requests counted as writes, of which the recording does not say which way they went. */
  readonly bothWays: number;
  /** Requests under way, the most at once. */
  readonly queueDepth: number;
  /** Commands with the controller, the most at once: more than requests where those were split. */
  readonly commandsAtOnce: number;
  /** I/O queue pairs. */
  readonly queues: number;
  /** Read and write commands sent. */
  readonly commands: number;
  /** Of those, reads. */
  readonly reads: number;
  /** Of those, writes. */
  readonly writes: number;
  /** Longest command, bytes. Longer requests are several, as are those of too many pieces. */
  readonly maxBytes: number;
  /** Requests that became several commands. */
  readonly split: number;
  /** Commands of one piece of memory, mapped by itself. */
  readonly singles: number;
  /** Commands of one range of addresses. */
  readonly ranges: number;
  /** Commands of several pieces, each mapped by itself. */
  readonly scattered: number;
  /** PRPs that described data, in commands and lists. */
  readonly prpEntries: number;
  /** SGL descriptors that described data, in commands and lists. */
  readonly sglDescriptors: number;
  /** Lists of either that commands pointed at, a page each at most. */
  readonly lists: number;
  /** Bytes of those lists. */
  readonly listBytes: number;
  /** Writes to submission doorbells. */
  readonly submissionDoorbells: number;
  /** Writes to completion doorbells. */
  readonly completionDoorbells: number;
  /** Interrupts that the controller sent. */
  readonly interrupts: number;
  /** What mapping them took. */
  readonly cost: NvmeCost;
  /** The same requests, each mapped whole. */
  readonly strategies: readonly StrategyCost[];
  /** Bytes that were checked where they arrived. */
  readonly verifiedBytes: number;
  /** Bytes that came out wrong: 0, unless something is broken. */
  readonly mismatches: number;
  /** The first of those. */
  readonly firstMismatch: NvmeMismatch | undefined;
  /** Requests that the controller refused. */
  readonly failed: number;
  /** Why the first of those. */
  readonly firstFailure: string | undefined;
  /** What was not given back at the end, in words: nothing, unless something is broken. */
  readonly leaks: readonly string[];
}

const BESIDE: readonly StrategyName[] = ["one-shot", "scatterlist", "two-step"];

/**
 * Replays `recorded` as NVMe commands. `options.requestCap` limits what the controller takes at once: to 4 KiB times a power of
 * two, from 8 KiB on, as controllers say it.
 *
 * @throws DmaError (rejects) ERR_DMA_REPLAY_OPTIONS (EINVAL), before anything is replayed
 */
export async function replayAsNvme(recorded: Requests, options: NvmeReplayOptions = {}): Promise<NvmeReplay> {
  checkRequests(recorded);
  checkReplayOptions(options);
  const { hugePages = false, cost = PUBLISHED_COST, progress = () => {}, seed = 1, requestCap } = options;
  const { plan, leftOut, bothWays } = nvmeLoadOf(recorded, { hugePages });
  const machine = machineOf(options);
  const runOptions = {
    ...machine,
    seed,
    ...(requestCap !== undefined && { maxTransferBytes: transferOf(requestCap) }),
  };
  progress("replaying as NVMe commands");
  const run = await new NvmeRun(plan, { ...runOptions, unsaid: "write" }).run();
  const runs = [run];
  if (bothWays > 0) {
    progress("replaying as NVMe commands, the other way");
    runs.push(await new NvmeRun(plan, { ...runOptions, unsaid: "read" }).run());
  }
  const sum = (of: (run: NvmeOutcome) => number): number => runs.reduce((total, each) => total + of(each), 0);
  const { counters, mapper } = run;
  const counted = {
    iovaOps: counters.iovaAllocations + counters.iovaFrees,
    iovaSteps: counters.iovaSteps,
    pteWrites: counters.pteWrites,
    invalidations: counters.invalidations,
  };
  return {
    requests: plan.requests,
    bytes: totalBytes(plan.loads),
    leftOut,
    bothWays,
    queueDepth: run.queueDepth,
    commandsAtOnce: run.commandsAtOnce,
    queues: run.queues,
    commands: run.commands,
    reads: run.reads,
    writes: run.commands - run.reads,
    maxBytes: run.maxBytes,
    split: run.split,
    singles: mapper.singles,
    ranges: mapper.ranges,
    scattered: mapper.scattered,
    prpEntries: mapper.prpEntries,
    sglDescriptors: mapper.sglDescriptors,
    lists: mapper.lists,
    listBytes: mapper.listBytes,
    submissionDoorbells: run.submissionDoorbells,
    completionDoorbells: run.completionDoorbells,
    interrupts: run.interrupts,
    cost: {
      ...counted,
      mapSyncs: counters.mapSyncs,
      flushQueueEntries: counters.flushQueueEntries,
      metadataBytes: mapper.metadataBytes,
      predictedNs: predict({ ...counted, calls: 0 }, cost),
    },
    strategies: mappedWhole(plan, machine, cost),
    verifiedBytes: sum(({ verifiedBytes }) => verifiedBytes),
    mismatches: sum(({ mismatches }) => mismatches),
    firstMismatch: runs.find(({ firstMismatch }) => firstMismatch)?.firstMismatch,
    failed: sum(({ failed }) => failed),
    firstFailure: runs.find(({ firstFailure }) => firstFailure)?.firstFailure,
    leaks: runs.flatMap(({ leaks }) => leaks),
  };
}

function totalBytes(loads: Iterable<ReplayRequest>): number {
  let sum = 0;
  for (const { length } of loads) sum += length;
  return sum;
}

function machineOf({
  iommu = "vtd-second-stage",
  mode = "strict",
  cachingMode = false,
  largestCached,
}: NvmeReplayOptions): ReplayMachineOptions {
  const limit = largestCached === undefined ? {} : { largestCached };
  return { iommu, mode: cachingMode ? "strict" : mode, cachingMode, ...limit };
}

/** What a controller can say that is no more than `bytes`. */
const transferOf = (bytes: number): number => PAGE_SIZE * 2 ** Math.max(1, Math.floor(Math.log2(bytes / PAGE_SIZE)));

/** The strategies that a driver chooses from, for the same requests. */
function mappedWhole(
  plan: Plan,
  options: ReplayMachineOptions,
  cost: NonNullable<CompareOptions["cost"]>,
): StrategyCost[] {
  const touched = new TouchedPages(plan.loads);
  return STRATEGIES.filter(({ name }) => BESIDE.includes(name)).map((strategy) => {
    const machine = new Machine(options, true);
    machine.prepare(touched, strategy);
    return strategyCost(strategy, machine.run(plan, strategy), cost, undefined);
  });
}
