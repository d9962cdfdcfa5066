/** What following and judging every mapping costs, without the reading: one-shot and two-step, with their `iommu:*` events. */
import { type Bench, fold, HASH, type Result } from "../../bench/bench.ts";
import type { Random } from "../base/index.ts";
import type { EventBatch, Trace } from "../trace/index.ts";
import { checkTrace } from "./check-trace.ts";
import { DISK, NIC, SampleTrace } from "./findings/sample-trace.ts";
import { readRequests } from "./requests.ts";
import { readStats } from "./stats.ts";

const PAGE = 4096;
const IN_FLIGHT = 64;
/** Printing them is slow: they are gone through again and again. */
const EVENTS = 20_000;

/** One-shot mappings of a card that come and go in a ring, and two-step requests of a disk in between. */
function load(events: number, random: Random): SampleTrace {
  const trace = new SampleTrace();
  for (let i = 0, written = 0; written < events; i++) {
    const iova = 0xf000_0000 + (i % IN_FLIGHT) * PAGE;
    if (i >= IN_FLIGHT) trace.unmap(NIC, iova, 1522);
    trace.map(NIC, iova, 0x1000_0000 + random.below(4096) * PAGE, 1522);
    written += 4;
    if (i % 8 !== 0) continue;
    const range = 0xfe00_0000;
    trace.reserve(DISK, 1, range, 8 * PAGE);
    for (let piece = 0; piece < 8; piece++)
      trace.link(DISK, 1, range, piece * PAGE, 0x4000_0000 + random.below(4096) * PAGE, PAGE);
    trace.syncRange(DISK, 1, range, 8 * PAGE).destroy(DISK, 1, range, 8 * PAGE);
    written += 20;
  }
  return trace;
}

/** Batches kept in memory, so that they can be gone through again. */
async function keep(sample: SampleTrace): Promise<() => Trace> {
  const trace = await sample.open();
  const batches: EventBatch[] = [];
  for await (const batch of trace.batches()) batches.push(structuredClone(batch));
  return () => ({
    ...{ format: trace.format, types: trace.types, strings: trace.strings, buffers: trace.buffers },
    ...{ chains: trace.chains, timing: trace.timing, longBytes: trace.longBytes, remarks: [] },
    ...{ clock: undefined, cpus: 4, system: undefined, timeBase: trace.timeBase, lost: 0, damage: undefined },
    batches: async function* () {
      yield* batches;
    },
  });
}

const over =
  (judge: (trace: Trace) => Promise<number>) =>
  (random: Random): ((units: number) => Promise<Result>) => {
    let replay: Promise<() => Trace> | undefined;
    return async (units) => {
      replay ??= keep(load(EVENTS, random.fork("load")));
      const open = await replay;
      let hash = HASH;
      const times = Math.ceil(units / EVENTS);
      for (let i = 0; i < times; i++) hash = fold(hash, await judge(open()));
      return { units: times * EVENTS, hash };
    };
  };

export const benches: readonly Bench[] = [
  {
    name: "check a trace",
    unit: "event",
    smoke: 2_000,
    full: 1_000_000,
    sameHash: false,
    contenders: [
      { name: "check", prepare: over(async (trace) => (await checkTrace(trace)).mappings) },
      { name: "stats", prepare: over(async (trace) => (await readStats(trace)).mappings) },
      { name: "requests, kept", prepare: over(async (trace) => (await readRequests(trace)).count) },
    ],
  },
];
