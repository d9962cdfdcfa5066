/**
 * Events as columns: what every reader of a trace hands on, and every consumer reads.
 *
 * Idea: no object per event. A batch is typed arrays, one row an event, reused by the reader for the next batch: a
 * consumer copies what it keeps. The fields of an event lie in `words`, two 32-bit words each in the order of its type,
 * so that kernel pointers and all-ones addresses stay exact. Times are nanoseconds since the trace's `timeBase`: exact in
 * a double for 104 days.
 */
import type { CallChain } from "./call-chain.ts";
import type { TraceDamage } from "./errors.ts";
import type { Remark } from "./remarks.ts";
import type { Timing } from "./timing.ts";

/** What the two words of a field hold. */
export type FieldKind =
  /** A number of up to 64 bits. */
  | "unsigned"
  | "signed"
  /** Low word: index into the trace's strings. */
  | "string"
  /** Low word: where the items begin in the batch's `words`; high word: how many, two words each. */
  | "array";

/** A field of an event: its name, and how its two words are read. */
export interface EventField {
  /** As the kernel's format file has it. */
  readonly name: string;
  /** How the two words are read. */
  readonly kind: FieldKind;
}

/** One kind of event in one file: its name and its fields, in the order of their words. */
export interface EventType {
  /**
   * The file's number of it; where the file has none, one given while reading. Negative: an event of the reader's
   * own.
   */
  readonly id: number;
  /** `dma`, `iommu`, …; empty where a text file does not say. */
  readonly system: string;
  /** `map_sg`, `dma_map_phys`, … */
  readonly name: string;
  /** In the order of their words. */
  readonly fields: readonly EventField[];
}

/** Some thousand events as columns, in time order; valid until the next batch is asked for. */
export interface EventBatch {
  /** Rows that are in use; the arrays are longer. */
  readonly count: number;
  /** Index into the trace's `types`. */
  readonly type: Uint32Array;
  /** 0 where the file does not say (a remark says so then). */
  readonly cpu: Uint16Array;
  /** -1: the file does not say. */
  readonly pid: Int32Array;
  /** Index into the trace's `strings`: the name of the task. */
  readonly task: Uint32Array;
  /** Index into the trace's `buffers`. */
  readonly buffer: Uint16Array;
  /** Index into the trace's `chains`: who called; 0: that was not recorded. */
  readonly chain: Uint32Array;
  /** Nanoseconds since `timeBase`, never negative; what they mean, {@link Trace.timing} says. */
  readonly timeNs: Float64Array;
  /** Index of the event's first word. */
  readonly start: Uint32Array;
  /** Two words for each field of each event, low word first. */
  readonly words: Uint32Array;
}

/** An open trace. `types`, `strings` and `chains` grow while batches are read; an index never changes its meaning. */
export interface Trace {
  /** Of which of the known kinds the file is. */
  readonly format:
    | "trace.dat v6"
    | "trace.dat v7"
    | "perf.data"
    | "ftrace text"
    | "trace-cmd report"
    | "perf script"
    /** Messages as `printk:console` events (kernel-log/log-trace.ts). */
    | "kernel log";
  /** Event types that were met so far, or that the file lists. */
  readonly types: readonly EventType[];
  /** Texts that fields and tasks refer to, by index. */
  readonly strings: readonly string[];
  /** Instances that events were recorded in; the main one is "". */
  readonly buffers: readonly string[];
  /** Call chains; the first is the empty one. */
  readonly chains: readonly CallChain[];
  /** The kernel's trace clock ("local", "mono", …), where the file says. */
  readonly clock: string | undefined;
  /** What the stamps are, as far as was read: a count is never printed as a duration. */
  readonly timing: Timing;
  /** CPUs that were recorded, where the file says. */
  readonly cpus: number | undefined;
  /** Bytes of a `long` of the kernel, 4 or 8, where the file says. */
  readonly longBytes: number | undefined;
  /** Kernel release, machine and the like, where the file says. */
  readonly system: string | undefined;
  /** Nanoseconds that `timeNs` counts from. */
  readonly timeBase: bigint;
  /** Events that the kernel or the recorder says were lost, so far; -1: some, and no number is known. */
  readonly lost: number;
  /** What was not understood so far, and what must be known to read the rest rightly. Every report carries it. */
  readonly remarks: readonly Remark[];
  /** Best effort only: where reading stopped, and why. */
  readonly damage: TraceDamage | undefined;
  /** Events in time order. Each batch is valid until the next is asked for. */
  batches(): AsyncIterable<EventBatch>;
}

/** The name of the event that stands for a lost-event mark; its one field is `count` (-1: unknown). */
export const LOST_EVENTS = "lost_events";
/** Its one field. */
export const LOST_FIELDS: readonly EventField[] = [{ name: "count", kind: "signed" }];

/** Field `field` of event `row` as a number; above 2^53 it is rounded: an address up there by {@link fieldPage}. */
export const fieldNumber = (batch: EventBatch, row: number, field: number): number => {
  const at = batch.start[row]! + field * 2;
  return batch.words[at + 1]! * 0x1_0000_0000 + batch.words[at]!;
};

/** The same for a signed field: a number in [-2^63, 2^63). */
export const fieldSigned = (batch: EventBatch, row: number, field: number): number => {
  const at = batch.start[row]! + field * 2;
  return (batch.words[at + 1]! | 0) * 0x1_0000_0000 + batch.words[at]!;
};

/** The page (of 4 KiB) of an address: exact for all 64 bits. */
export const fieldPage = (batch: EventBatch, row: number, field: number): number => {
  const at = batch.start[row]! + field * 2;
  return batch.words[at + 1]! * 0x10_0000 + (batch.words[at]! >>> 12);
};

/** Exact, all 64 bits. Allocates: not for hot paths. */
export const fieldBigint = (batch: EventBatch, row: number, field: number): bigint => {
  const at = batch.start[row]! + field * 2;
  return (BigInt(batch.words[at + 1]!) << 32n) | BigInt(batch.words[at]!);
};

/** A string field. */
export const fieldText = (trace: Pick<Trace, "strings">, batch: EventBatch, row: number, field: number): string =>
  trace.strings[batch.words[batch.start[row]! + field * 2]!] ?? "";
