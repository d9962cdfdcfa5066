/**
 * A kernel log beside a trace: two records of one machine, with two clocks.
 *
 * Idea: the log is read first, to facts and to an index of its lines. While the trace is read, lines that are in both tell by how much the
 * clocks differ, and faults that the trace has itself are not counted again. What is left is told at the trace's time, or, where
 * the clocks cannot be compared, without one.
 * Promises: memory is bounded: past {@link MOST_FACTS} facts of the log, the later ones are counted only.
 */
import {
  CONSOLE_EVENT,
  fieldNumber,
  fieldText,
  type KernelFact,
  KernelMessages,
  type Trace,
} from "../../trace/index.ts";
import { type ClockOffset, LogIndex, OffsetVotes } from "./log-clock.ts";
import type { Told } from "./told.ts";

/** Facts of a log that are kept. */
const MOST_FACTS = 1 << 16;
/** A fault that the trace has at about this time is the log's. */
const SAME_NS = 100e6;
const SECOND_NS = 1e9;

/** A line of a log. */
interface LogPlace {
  /** Nanoseconds by the log's clock; `undefined`: the line has none. */
  readonly timeNs: number | undefined;
  readonly line: number;
}

/** A log that was read. */
export interface KernelLog {
  /** "dmesg": since boot; "wall": a date; "none": without times. */
  readonly clock: "dmesg" | "wall" | "none";
  /** How fine its times are, nanoseconds. */
  readonly resolutionNs: number;
  /** What it says of DMA, in the order of its lines. */
  readonly facts: readonly KernelFact<LogPlace>[];
  /** Facts that were too many to be kept. */
  readonly unkept: number;
  /** Messages of the kernel that were read. */
  readonly messages: number;
  /** Those that say something of DMA and were understood. */
  readonly understood: number;
  /** Its lines by what they say: by it the clocks are brought together. */
  readonly index: LogIndex;
}

/**
 * Reads a log that was opened as a trace (format "kernel log").
 *
 * @throws DmaError ERR_DMA_TRACE_DAMAGED and what reading its bytes throws
 */
export async function readKernelLog(trace: Trace): Promise<KernelLog> {
  const facts: KernelFact<LogPlace>[] = [];
  const index = new LogIndex();
  let unkept = 0;
  let messages = 0;
  const reader = new KernelMessages<LogPlace>((fact) => {
    if (facts.length < MOST_FACTS) facts.push(fact);
    else unkept++;
  });
  let resolutionNs = 0;
  for await (const batch of trace.batches())
    for (let row = 0; row < batch.count; row++) {
      if (trace.types[batch.type[row]!]!.name !== CONSOLE_EVENT) continue;
      messages++;
      const text = fieldText(trace, batch, row, 0);
      const timeNs = trace.clock === "none" ? undefined : Number(trace.timeBase) + batch.timeNs[row]!;
      if (timeNs !== undefined) index.add(text, timeNs);
      reader.push(text, { timeNs, line: fieldNumber(batch, row, 1) });
    }
  reader.settle();
  resolutionNs = (trace as { readonly resolutionNs?: number }).resolutionNs ?? 0;
  for (const fact of facts)
    if (fact.kind === "fault" && fact.at.timeNs !== undefined) index.add(keyOf(fact), fact.at.timeNs);
  const clock = trace.clock === "dmesg" || trace.clock === "wall" ? trace.clock : "none";
  return { clock, resolutionNs, facts, unkept, messages, understood: reader.understood, index };
}

/** What tells one fact from another; a fault, whatever words it is told in. */
function keyOf(fact: KernelFact<unknown>): string {
  if (fact.kind === "fault")
    return `\0${fact.device ?? fact.stream ?? ""} ${fact.address === undefined ? "" : fact.address >> 12n} ${fact.access}`;
  return fact.kind === "suppressed" ? `\0${fact.by} ${fact.count}` : `\0${fact.kind} ${fact.text}`;
}

/** How the two clocks were brought together. */
export type LogClockUsed =
  | ({
      /** By lines that are in both. */
      readonly how: "found";
    } & ClockOffset)
  | {
      /** By the caller, who knows the difference. */
      readonly how: "given";
      /** Nanoseconds to add to the log's times. */
      readonly offsetNs: number;
    }
  | {
      /** Not at all: what the log says has no time. */
      readonly how: "unknown";
    };

export class LogBeside {
  readonly #log: KernelLog;
  readonly #baseNs: number;
  readonly #given: number | undefined;
  readonly #emit: (fact: KernelFact<Told>) => void;
  readonly #votes: OffsetVotes;
  /** Times of what the trace tells itself. */
  readonly #own = new Map<string, number[]>();
  #next = 0;

  /** `offsetNs`: to add to the log's times, where it is known; else it is looked for. */
  constructor(log: KernelLog, timeBase: bigint, offsetNs: number | undefined, emit: (fact: KernelFact<Told>) => void) {
    this.#log = log;
    this.#baseNs = Number(timeBase);
    this.#given = offsetNs;
    this.#emit = emit;
    this.#votes = new OffsetVotes(log.index, log.resolutionNs);
  }

  /** The trace has this line. */
  heard(message: string, timeNs: number): void {
    this.#votes.heard(message, this.#baseNs + timeNs);
  }

  /** The trace tells this fact itself. */
  told(fact: KernelFact<Told>): void {
    if (fact.at.timeNs === undefined) return;
    const key = keyOf(fact);
    if (fact.kind === "fault") this.#votes.heard(key, this.#baseNs + fact.at.timeNs);
    const times = this.#own.get(key);
    if (times) times.push(fact.at.timeNs);
    else if (this.#own.size < MOST_FACTS) this.#own.set(key, [fact.at.timeNs]);
  }

  /** Tells what of the log is due by `timeNs` of the trace, where the difference was given: in order with the events. */
  due(timeNs: number): void {
    if (this.#given === undefined) return;
    const { facts } = this.#log;
    while (this.#next < facts.length) {
      const at = this.#timeOf(facts[this.#next]!, this.#given);
      if (at === undefined || at + SAME_NS + this.#log.resolutionNs > timeNs) return;
      this.#tell(facts[this.#next++]!, this.#given, this.#log.resolutionNs);
    }
  }

  /** The trace has ended: tells the rest. */
  finish(): LogClockUsed {
    const found = this.#given === undefined ? this.#votes.result() : undefined;
    const offsetNs = this.#given ?? found?.offsetNs;
    const { facts, clock } = this.#log;
    const comparable = clock !== "none" && offsetNs !== undefined;
    const toleranceNs = found?.toleranceNs ?? this.#log.resolutionNs;
    for (; this.#next < facts.length; this.#next++)
      this.#tell(facts[this.#next]!, comparable ? offsetNs : undefined, toleranceNs);
    if (!comparable) return { how: "unknown" };
    return found ? { how: "found", ...found } : { how: "given", offsetNs };
  }

  #timeOf({ at }: KernelFact<LogPlace>, offsetNs: number): number | undefined {
    return at.timeNs === undefined ? undefined : at.timeNs + offsetNs - this.#baseNs;
  }

  #tell(fact: KernelFact<LogPlace>, offsetNs: number | undefined, toleranceNs: number): void {
    const timeNs = offsetNs === undefined ? undefined : this.#timeOf(fact, offsetNs);
    if (this.#isOwn(keyOf(fact), timeNs)) return;
    const { line } = fact.at;
    this.#emit({ ...fact, at: { source: "kernel-log", timeNs, toleranceNs, place: undefined, line } });
  }

  /** The trace has told it: at that time, or, where times cannot be compared, once for each. */
  #isOwn(key: string, timeNs: number | undefined): boolean {
    const times = this.#own.get(key);
    if (!times || times.length === 0) return false;
    const slack = SAME_NS + Math.min(this.#log.resolutionNs, SECOND_NS);
    const at = timeNs === undefined ? 0 : times.findIndex((time) => Math.abs(time - timeNs) <= slack);
    if (at < 0) return false;
    times.splice(at, 1);
    return true;
  }
}
