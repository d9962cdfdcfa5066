/**
 * What a recording tells of faults and of the kernel's own verdicts: by the event `iommu:io_page_fault`, and by the kernel's lines in it.
 *
 * Idea: a visitor of batches that looks at two kinds of events and lets the rest pass at the price of one comparison. Both become the
 * same facts (src/trace/kernel-log), with the place of the event; a fact whose lines are spread over events is settled when the batch
 * after the next begins, at the latest.
 * Promises: what is told is in the order of the recording, but up to two batches late: ask by its time, not by what is live now.
 */
import {
  CONSOLE_EVENT,
  type EventBatch,
  type EventType,
  fieldBigint,
  fieldNumber,
  fieldText,
  type IommuFault,
  type KernelFact,
  KernelMessages,
  known,
  LogFronts,
  shown,
  type Trace,
} from "../../trace/index.ts";
import type { Place } from "../lifetimes/history.ts";
import type { FaultSource } from "./stretches.ts";

/** Where a fact was told. */
export interface Told {
  readonly source: FaultSource;
  /** Nanoseconds since the trace's time base; `undefined`: by a clock that cannot be compared. */
  readonly timeNs: number | undefined;
  /** The time may be wrong by this much. */
  readonly toleranceNs: number;
  /** The event; `undefined` for a line of a log beside the trace. */
  readonly place: Place | undefined;
  /** Line of the log, from 1. */
  readonly line: number | undefined;
}

const NOTHING = 0;
const FAULT = 1;
const MESSAGE = 2;

interface Plan {
  readonly what: number;
  /** Fields by what they hold; -1: the event has none. */
  readonly device: number;
  readonly iova: number;
  readonly flags: number;
  readonly message: number;
  readonly line: number;
}

/** Bit of the flags of `io_page_fault`: a write. Source: Linux's IOMMU_FAULT_WRITE. */
const FAULT_WRITE = 1;

export class ToldFaults {
  readonly #trace: Trace;
  readonly #emit: (fact: KernelFact<Told>) => void;
  readonly #heard: ((message: string, timeNs: number) => void) | undefined;
  readonly #messages: KernelMessages<Told>;
  readonly #fronts = new LogFronts();
  readonly #plans: Plan[] = [];
  readonly #source: FaultSource;
  #unsettled = 0;
  /** Messages of the kernel that were seen, and those that were understood. */
  messages = 0;

  /** `heard` is told every message, for whoever compares clocks. */
  constructor(trace: Trace, emit: (fact: KernelFact<Told>) => void, heard?: (message: string, timeNs: number) => void) {
    this.#trace = trace;
    this.#emit = emit;
    this.#heard = heard;
    this.#messages = new KernelMessages(emit);
    this.#source = trace.format === "kernel log" ? "kernel-log" : "console";
  }

  get understood(): number {
    return this.#messages.understood;
  }

  batch(batch: EventBatch): void {
    const { count, type } = batch;
    if (this.#unsettled > 0 && --this.#unsettled === 0) this.#messages.settle();
    for (let row = 0; row < count; row++) {
      const plan = this.#plans[type[row]!] ?? this.#plan(type[row]!);
      if (plan.what === NOTHING) continue;
      if (plan.what === FAULT) this.#emit(this.#fault(plan, batch, row));
      else this.#message(plan, batch, row);
    }
  }

  /** The recording has ended. */
  finish(): void {
    this.#messages.settle();
  }

  #message(plan: Plan, batch: EventBatch, row: number): void {
    this.messages++;
    const text = fieldText(this.#trace, batch, row, plan.message);
    // Kernels before 5.10 put the level and the kernel's own stamp in front.
    const message = text.startsWith("<") || text.startsWith("[") ? this.#fronts.read(text).message : text;
    const timeNs = batch.timeNs[row]!;
    this.#heard?.(message, timeNs);
    const before = this.#messages.understood;
    this.#messages.push(message, {
      source: this.#source,
      timeNs,
      toleranceNs: 0,
      place: this.#source === "console" ? placeOf(batch, row) : undefined,
      line: plan.line < 0 ? undefined : fieldNumber(batch, row, plan.line),
    });
    if (this.#messages.understood > before) this.#unsettled = 2;
  }

  #fault(plan: Plan, batch: EventBatch, row: number): IommuFault<Told> {
    const flags = plan.flags < 0 ? undefined : fieldNumber(batch, row, plan.flags);
    const timeNs = batch.timeNs[row]!;
    return {
      kind: "fault",
      unit: undefined,
      unitName: undefined,
      device: plan.device < 0 ? undefined : fieldText(this.#trace, batch, row, plan.device),
      stream: undefined,
      address: fieldBigint(batch, row, plan.iova),
      access: flags === undefined ? "unknown" : (flags & FAULT_WRITE) !== 0 ? "write" : "read",
      reason: "the event does not say why",
      reasonCode: undefined,
      pasid: undefined,
      domain: undefined,
      entry: undefined,
      detached: false,
      permission: undefined,
      text: shown("io_page_fault"),
      at: { source: "io_page_fault", timeNs, toleranceNs: 0, place: placeOf(batch, row), line: undefined },
    };
  }

  #plan(id: number): Plan {
    const type = this.#trace.types[id]!;
    const plan = planOf(type);
    this.#plans[id] = plan;
    return plan;
  }
}

const placeOf = (batch: EventBatch, row: number): Place => ({
  timeNs: batch.timeNs[row]!,
  cpu: batch.cpu[row]!,
  pid: batch.pid[row]!,
  task: batch.task[row]!,
  type: batch.type[row]!,
  site: 0,
});

function planOf(type: EventType): Plan {
  const named = (...names: readonly string[]): number => type.fields.findIndex(({ name }) => names.includes(name));
  const message = named("msg", "text");
  if (type.name === CONSOLE_EVENT && (type.system === "printk" || type.system === "") && message >= 0)
    if (type.fields[message]!.kind === "string")
      return { what: MESSAGE, device: -1, iova: -1, flags: -1, message, line: named("line") };
  const event = known(type);
  const iova = event?.meaning === "iommu-fault" ? event.fields.iova : undefined;
  if (iova === undefined) return { what: NOTHING, device: -1, iova: -1, flags: -1, message: -1, line: -1 };
  return { what: FAULT, device: event!.fields.device ?? -1, iova, flags: named("flags"), message: -1, line: -1 };
}
