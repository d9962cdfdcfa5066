/**
 * All that the kernel told: in the recording, and in a log beside it, as one stream of facts and one summary.
 *
 * Idea: the rules ask only for facts; where they come from, and how two clocks are brought together, ends here.
 * Promises: what was kept back by the kernel's rate limit, and lines about an IOMMU that are not understood, are counted and shown.
 */
import type { EventBatch, KernelFact, Trace } from "../../trace/index.ts";
import { type KernelLog, LogBeside, type LogClockUsed } from "./log-beside.ts";
import { type Told, ToldFaults } from "./told.ts";

/** A line that was not understood. */
export interface UnknownKernelLine {
  /** As it stands there, without its front. */
  readonly text: string;
  /** Of the log, from 1. */
  readonly line: number | undefined;
}

/** What the kernel said in the recording and in the log beside it, counted. */
export interface KernelSummary {
  /** Messages of the kernel that were read. */
  readonly messages: number;
  /** Those that say something of DMA and were understood. */
  readonly understood: number;
  /** Faults that were told, by any source. */
  readonly faults: number;
  /** Devices that faults and the kernel's lines name. */
  readonly devices: readonly string[];
  /** Lines that the kernel kept back, by the function that printed. */
  readonly suppressed: Readonly<Record<string, number>>;
  /** Lines about an IOMMU that are not understood. */
  readonly unknown: {
    /** How many. */
    readonly count: number;
    /** The first of them. */
    readonly first: readonly UnknownKernelLine[];
  };
  /** Faults and reports of a log that were too many to be looked at. */
  readonly unkept: number;
  /** With a log beside the trace: how its times were brought to the trace's. */
  readonly clock: LogClockUsed | undefined;
}

/** Lines that are shown. */
const MOST_SHOWN = 5;
const MOST_FUNCTIONS = 100;
const SETTLED_BATCHES = 3;
/** Devices that are listed. */
const MOST_DEVICES = 10_000;

export class KernelTold {
  readonly #told: ToldFaults;
  readonly #log: KernelLog | undefined;
  readonly #beside: LogBeside | undefined;
  readonly #emit: (fact: KernelFact<Told>) => void;
  readonly #suppressed = new Map<string, number>();
  readonly #unknown: UnknownKernelLine[] = [];
  #unknownCount = 0;
  /** When the last batches ended. */
  readonly #ends: number[] = [];
  #faults = 0;
  readonly #devices = new Set<string>();

  constructor(
    trace: Trace,
    log: KernelLog | undefined,
    offsetNs: number | undefined,
    emit: (fact: KernelFact<Told>) => void,
  ) {
    this.#emit = emit;
    this.#log = log;
    this.#beside = log && new LogBeside(log, trace.timeBase, offsetNs, (fact) => this.#take(fact));
    const beside = this.#beside;
    this.#told = new ToldFaults(
      trace,
      (fact) => {
        beside?.told(fact);
        this.#take(fact);
      },
      beside && ((message, timeNs) => beside.heard(message, timeNs)),
    );
  }

  /** After the batch was fed to the lifetimes. */
  batch(batch: EventBatch): void {
    this.#told.batch(batch);
    if (batch.count === 0) return;
    // What the recording tells itself is settled two batches later: till then the log's line may be the same.
    this.#ends.push(batch.timeNs[batch.count - 1]!);
    if (this.#ends.length > SETTLED_BATCHES) this.#beside?.due(this.#ends.shift()!);
  }

  finish(): KernelSummary {
    this.#told.finish();
    const clock = this.#beside?.finish();
    return {
      messages: this.#told.messages + (this.#log?.messages ?? 0),
      understood: this.#told.understood + (this.#log?.understood ?? 0),
      faults: this.#faults,
      devices: [...this.#devices],
      suppressed: Object.fromEntries(this.#suppressed),
      unknown: { count: this.#unknownCount, first: this.#unknown },
      unkept: this.#log?.unkept ?? 0,
      clock,
    };
  }

  #take(fact: KernelFact<Told>): void {
    if ("device" in fact && fact.device !== undefined && this.#devices.size < MOST_DEVICES)
      this.#devices.add(fact.device);
    if (fact.kind === "suppressed") {
      if (this.#suppressed.size < MOST_FUNCTIONS || this.#suppressed.has(fact.by))
        this.#suppressed.set(fact.by, (this.#suppressed.get(fact.by) ?? 0) + fact.count);
    } else if (fact.kind === "unknown") {
      this.#unknownCount++;
      if (this.#unknown.length < MOST_SHOWN) this.#unknown.push({ text: fact.text, line: fact.at.line });
    } else if (fact.kind === "fault") this.#faults++;
    this.#emit(fact);
  }
}
