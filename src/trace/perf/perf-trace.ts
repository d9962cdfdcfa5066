/**
 * A perf.data file as batches.
 *
 * Idea: records are put into the order of their times (time-order.ts); the payload of a tracepoint's sample is the same
 * binary event that a trace.dat holds, so the same plans decode it. A sample's call chain becomes the event's.
 * Promises: memory is two rounds of records and one batch. Samples of other events (cycles, page faults, …) are counted as
 * `perf_sample`. Strict reading stops at the first damage; best effort gives what is before it.
 * Not for: what was recorded by several threads into a folder of files, or the trace of a processor (AUX areas).
 * Specified by: perf.data of Linux 4.1 to 7.2, from a file or a pipe, compressed or not.
 */
import { DmaError } from "../../base/index.ts";
import type { CallChain } from "../call-chain.ts";
import { isStrange } from "../catalogue.ts";
import { ChainTable } from "../chains.ts";
import { Columns } from "../columns.ts";
import { damaged, readTwice, type TraceDamage } from "../errors.ts";
import { type EventBatch, type EventType, LOST_EVENTS, LOST_FIELDS, type Trace } from "../events.ts";
import { FieldPlan } from "../field-plan.ts";
import type { FileInput } from "../input.ts";
import { type Remark, Remarks } from "../remarks.ts";
import { StringTable } from "../string-table.ts";
import { Symbols } from "../symbols.ts";
import { LAST_NS, LAST_STAMP, type Timing, TimingOf, timeBaseFor } from "../timing.ts";
import { KernelFrames } from "./kernel-frames.ts";
import { addPipedEvent, type PerfFile, readFormats, readPerfFile } from "./perf-file.ts";
import { END, LOAD, PerfRecords, RECORD } from "./perf-records.ts";
import type { SampleLayout, SampleParts } from "./sample-layout.ts";
import { type Ordered, TimeOrder } from "./time-order.ts";

const TWO_32 = 0x1_0000_0000;
const UNKNOWN_TASK = "<...>";
/** Clocks of `perf record -k`, by the kernel's number, as the trace clocks are called. */
const CLOCKS: Readonly<Record<number, string>> = { 0: "realtime", 1: "mono", 4: "mono_raw", 7: "boot", 11: "tai" };
const MISC_CPUMODE = 7;
const decoder = new TextDecoder();

export class PerfTrace implements Trace {
  readonly format = "perf.data";
  readonly types: EventType[] = [{ id: -1, system: "", name: LOST_EVENTS, fields: LOST_FIELDS }];
  readonly strings: readonly string[];
  readonly buffers: readonly string[] = [""];
  readonly chains: readonly CallChain[];
  clock: string | undefined;
  timeBase = 0n;
  damage: TraceDamage | undefined;

  readonly #input: FileInput;
  readonly #file: PerfFile;
  readonly #records: PerfRecords;
  readonly #bestEffort: boolean;
  readonly #batchSize: number;
  readonly #strings = new StringTable();
  readonly #chains = new ChainTable();
  readonly #frames: KernelFrames;
  readonly #order: TimeOrder;
  readonly #remarks = new Remarks();
  #timing: TimingOf = new TimingOf();
  readonly #plans = new Map<number, FieldPlan>();
  readonly #typeOf = new Map<FieldPlan, number>();
  readonly #strange = new Set<FieldPlan>();
  readonly #taskOf = new Map<number, number>();
  readonly #parts: SampleParts = { tid: -1, time: -1, cpu: -1, chain: -1, chainLength: 0, rawStart: -1, rawEnd: -1 };
  #unknownTask = 0;
  #otherType = -1;
  #hasBase = false;
  #lastTime = 0;
  #lost = 0;
  #lostUnknown = false;
  #hasTime = true;
  #hasCpu = true;
  #ended = false;
  #read = false;

  private constructor(input: FileInput, file: PerfFile, bestEffort: boolean, batchSize: number) {
    this.#input = input;
    this.#file = file;
    this.#bestEffort = bestEffort;
    this.#batchSize = batchSize;
    this.#records = new PerfRecords(input, file.littleEndian, file.dataOffset, file.dataEnd);
    this.#order = new TimeOrder(file.littleEndian);
    this.#frames = new KernelFrames(this.#chains);
    this.strings = this.#strings.list;
    this.chains = this.#chains.list;
    this.#strings.intern("");
    this.#unknownTask = this.#strings.intern(UNKNOWN_TASK);
    this.#taskOf.set(0, this.#strings.intern("swapper"));
  }

  /** Reads the metadata and the records up to the first sample. Errors: ERR_DMA_TRACE_DAMAGED. */
  static async open(input: FileInput, bestEffort: boolean, batchSize: number): Promise<PerfTrace> {
    const trace = new PerfTrace(input, await readPerfFile(input), bestEffort, batchSize);
    await trace.#takeFormats();
    while (!trace.#hasBase && !trace.#ended) {
      const ordered = await trace.#fill();
      if (ordered) trace.#pending.push(ordered);
      if (ordered) break;
    }
    return trace;
  }

  /** Records that were put in order while the trace was opened. */
  readonly #pending: Ordered[] = [];

  get cpus(): number | undefined {
    return this.#file.cpus;
  }

  get system(): string | undefined {
    const { osRelease, arch } = this.#file;
    return osRelease === undefined ? undefined : `Linux ${osRelease}${arch === undefined ? "" : ` ${arch}`}`;
  }

  get longBytes(): number | undefined {
    return this.#file.formats?.longSize;
  }

  get lost(): number {
    return this.#lost === 0 && this.#lostUnknown ? -1 : this.#lost;
  }

  get remarks(): readonly Remark[] {
    return this.#remarks.list;
  }

  get timing(): Timing {
    if (!this.#hasTime) return { kind: "none", stepNs: 0, note: "samples have no time (perf record -T takes it)" };
    return this.#timing.value;
  }

  async *batches(): AsyncGenerator<EventBatch> {
    if (this.#read) throw readTwice();
    this.#read = true;
    const columns = new Columns(this.#batchSize);
    for (;;) {
      const ordered = this.#pending.shift() ?? (this.#ended ? undefined : await this.#fill());
      if (!ordered) break;
      for (const index of ordered.ready) {
        const [start, end, type] = [
          ordered.places[index * 3]!,
          ordered.places[index * 3 + 1]!,
          ordered.places[index * 3 + 2]!,
        ];
        while (!this.#event(columns, type, ordered.times[index]!, start, end)) {
          yield columns;
          columns.clear();
        }
      }
      ordered.release();
    }
    if (columns.count > 0) yield columns;
    this.#sayWhatIsMissing();
  }

  /** Reads records until some are in order, or up to the end of the file. */
  async #fill(): Promise<Ordered | undefined> {
    const records = this.#records;
    try {
      for (;;) {
        const found = records.next();
        if (found === LOAD) await records.load();
        else if (found === END) break;
        else if (records.type === RECORD.finishedRound) {
          const ordered = this.#order.endRound();
          if (ordered.ready.length > 0) return ordered;
        } else if (records.type === RECORD.attr)
          await addPipedEvent(this.#file, records.bytes.slice(records.start, records.end), records.offset);
        else if (records.type === RECORD.tracingData) {
          this.#file.formats = await readFormats(
            this.#input,
            records.skipBehind(records.start),
            this.#file.littleEndian,
          );
          await this.#takeFormats();
        } else if (this.#keep()) {
          const ordered = this.#order.relieve();
          if (ordered) return ordered;
        }
      }
    } catch (error) {
      if (!this.#bestEffort || !(error instanceof DmaError)) throw error;
      const { offset, message } = error.details as unknown as TraceDamage;
      this.damage = { offset, message };
    }
    this.#ended = true;
    const rest = this.#order.rest();
    return rest.ready.length > 0 ? rest : undefined;
  }

  async #takeFormats(): Promise<void> {
    const { formats } = this.#file;
    if (!formats || this.#plans.size > 0) return;
    for (const format of formats.formats) {
      if (this.#plans.has(format.id)) continue;
      const plan = new FieldPlan(format);
      this.#plans.set(format.id, plan);
      this.#typeOf.set(plan, this.types.push(plan.type) - 1);
      if (isStrange(plan.type)) this.#strange.add(plan);
    }
    if (formats.symbols) this.#frames.symbols = new Symbols(await formats.symbols());
  }

  /** Puts the record at hand in line, if it is of a kind that matters. */
  #keep(): boolean {
    const { type, bytes, start, end } = this.#records;
    const isSample = type === RECORD.sample;
    if (
      !isSample &&
      type !== RECORD.comm &&
      type !== RECORD.fork &&
      type !== RECORD.lost &&
      type !== RECORD.lostSamples
    ) {
      if (type === RECORD.mmap || type === RECORD.mmap2) this.#mapped();
      return false;
    }
    this.#order.add(type, this.#timeOf(isSample), bytes, start, end);
    return true;
  }

  /** The time of the record at hand, since the base; 0 where it has none. */
  #timeOf(isSample: boolean): number {
    const { bytes, start, end, offset } = this.#records;
    const little = this.#file.littleEndian;
    // Only the parts up to the time are looked at: they are in the same place in every byte order.
    const layout = this.#layoutAt(isSample);
    if (!layout?.hasTime) return 0;
    const parts = this.#parts;
    if (isSample) layout.findTime(parts);
    else if (layout.hasIdOnAll) layout.findAtEnd((end - start) >>> 2, parts);
    else return 0;
    const at = start + parts.time * 4;
    if (parts.time < 0 || at < start || at + 8 > end) return 0;
    const [first, second] = [u32(bytes, at, little), u32(bytes, at + 4, little)];
    const [low, high] = little ? [first, second] : [second, first];
    if (low === 0 && high === 0) return 0;
    if (!this.#hasBase) {
      const stamp = (BigInt(high) << 32n) | BigInt(low);
      if (stamp > LAST_STAMP) throw damaged(offset, `a time of ${stamp} ns does not fit into 63 bits`);
      this.timeBase = timeBaseFor(stamp);
      this.#hasBase = true;
      this.clock = layout.clockid === undefined ? "perf" : CLOCKS[layout.clockid];
      this.#timing = new TimingOf(this.clock);
    }
    const base = this.timeBase;
    const time = (high - Number(base >> 32n)) * TWO_32 + (low - Number(base & 0xffff_ffffn));
    if (time < 0 || time > LAST_NS)
      throw damaged(offset, "a time that is further from the first than times can be told apart (104 days)");
    return time;
  }

  #layoutAt(isSample: boolean): SampleLayout | undefined {
    const { layouts, littleEndian } = this.#file;
    const { first } = layouts;
    const { bytes, start, end } = this.#records;
    if (!first) return undefined;
    const at = isSample ? start + first.idAt * 4 : end - first.idFromEnd * 4;
    if ((isSample ? first.idAt : first.idFromEnd) < 0 || at < start || at + 8 > end) return first;
    const [a, b] = [u32(bytes, at, littleEndian), u32(bytes, at + 4, littleEndian)];
    return (littleEndian ? layouts.of(a, b) : layouts.of(b, a)) ?? first;
  }

  /** Takes the record at bytes [start, end) of the ordered ones. False: the batch is full. */
  #event(columns: Columns, type: number, time: number, start: number, end: number): boolean {
    if (type === RECORD.sample) return this.#sample(columns, time, start, end);
    const { words, bytes } = this.#order;
    const at = start >>> 2;
    if (type === RECORD.comm && end - start >= 8) {
      let stop = start + 8;
      while (stop < end && bytes[stop] !== 0) stop++;
      this.#taskOf.set(words[at + 1]! | 0, this.#strings.internBytes(bytes, start + 8, stop));
    } else if (type === RECORD.fork && end - start >= 16) {
      const parent = this.#taskOf.get(words[at + 3]! | 0);
      if (parent !== undefined) this.#taskOf.set(words[at + 2]! | 0, parent);
    } else if (type === RECORD.lost && end - start >= 16) return this.#lostMark(columns, time, at + 2);
    else if (type === RECORD.lostSamples && end - start >= 8) return this.#lostMark(columns, time, at);
    return true;
  }

  #sample(columns: Columns, time: number, start: number, end: number): boolean {
    const { words, bytes } = this.#order;
    const little = this.#file.littleEndian;
    const { layouts } = this.#file;
    const at = start >>> 2;
    const { first } = layouts;
    if (!first) return true;
    const id = at + first.idAt;
    const layout =
      first.idAt < 0 || id + 2 > end >>> 2
        ? first
        : ((little ? layouts.of(words[id]!, words[id + 1]!) : layouts.of(words[id + 1]!, words[id]!)) ?? first);
    const parts = this.#parts;
    if (!layout.find(words, at, end >>> 2, little, parts)) {
      this.#remarks.count("unknown-form", "perf_sample");
      return true;
    }
    const raw = layout.tracepoint >= 0 && parts.rawEnd - parts.rawStart >= 4;
    const eventId = raw ? this.#eventId(bytes, parts.rawStart) : -1;
    const plan = raw ? (this.#plans.get(eventId) ?? this.#undescribed(eventId)) : undefined;
    const isWhole = plan && parts.rawEnd - parts.rawStart >= plan.least;
    if (!columns.fits(isWhole ? plan.wordsFor(parts.rawEnd - parts.rawStart) : 2)) return false;
    const row = columns.count;
    columns.start[row] = columns.used;
    let type = -1;
    if (isWhole) {
      const wrong = plan.read(bytes, words, little, parts.rawStart, parts.rawEnd, columns, this.#strings);
      if (wrong === undefined) {
        type = this.#typeOf.get(plan)!;
        if (this.#strange.has(plan)) this.#remarks.count("unknown-form", plan.type.name);
      } else this.#remarks.count("unknown-form", plan.type.name, undefined, wrong);
    } else if (plan) this.#remarks.count("unknown-form", plan.type.name);
    columns.type[row] = type < 0 ? this.#other() : type;
    const tid = parts.tid < 0 ? -1 : words[parts.tid + 1]! | 0;
    columns.pid[row] = tid;
    columns.task[row] = this.#taskOf.get(tid) ?? this.#unknownTask;
    columns.cpu[row] = parts.cpu < 0 ? 0 : words[parts.cpu]!;
    columns.buffer[row] = 0;
    columns.chain[row] =
      parts.chainLength > 0 ? this.#frames.chainAt(words, parts.chain, parts.chainLength, little) : 0;
    if (parts.time < 0) this.#hasTime = false;
    if (parts.cpu < 0) this.#hasCpu = false;
    if (time < this.#lastTime) this.#remarks.count("time-back");
    this.#lastTime = time;
    if (this.#timing.isLooking) this.#timing.see(time);
    columns.timeNs[row] = time;
    columns.count = row + 1;
    return true;
  }

  /** The first field of every event. */
  #eventId(bytes: Uint8Array, at: number): number {
    return this.#file.littleEndian ? bytes[at]! | (bytes[at + 1]! << 8) : (bytes[at]! << 8) | bytes[at + 1]!;
  }

  /** An event that the file does not describe: its name is not known, its time is. */
  #undescribed(id: number): FieldPlan {
    const plan = new FieldPlan({ system: "", name: `event_${id}`, id, common: [], fields: [] });
    this.#plans.set(id, plan);
    this.#typeOf.set(plan, this.types.push(plan.type) - 1);
    return plan;
  }

  /** Samples of events that are no tracepoints. */
  #other(): number {
    if (this.#otherType < 0)
      this.#otherType = this.types.push({ id: -2, system: "", name: "perf_sample", fields: [] }) - 1;
    return this.#otherType;
  }

  /** A mark for the events that the number of 64 bits at `word` counts. */
  #lostMark(columns: Columns, time: number, word: number): boolean {
    if (!columns.fits(2)) return false;
    const { words } = this.#order;
    const [low, high] = this.#file.littleEndian ? [words[word]!, words[word + 1]!] : [words[word + 1]!, words[word]!];
    const count = high === 0 && low <= 0x7fff_ffff ? low : -1;
    if (count === 0) return true;
    const row = columns.count++;
    columns.start[row] = columns.used;
    columns.words[columns.used++] = count;
    columns.words[columns.used++] = count < 0 ? 0xffff_ffff : 0;
    columns.type[row] = 0;
    columns.cpu[row] = 0;
    columns.pid[row] = -1;
    columns.task[row] = 0;
    columns.buffer[row] = 0;
    columns.chain[row] = 0;
    columns.timeNs[row] = time;
    if (count > 0) this.#lost += count;
    else this.#lostUnknown = true;
    return true;
  }

  /** A module of the kernel is mapped. */
  #mapped(): void {
    const { bytes, start, end, type, misc } = this.#records;
    const little = this.#file.littleEndian;
    const name = start + (type === RECORD.mmap ? 32 : 64);
    if (name > end || (misc & MISC_CPUMODE) !== 1) return;
    let stop = name;
    while (stop < end && bytes[stop] !== 0) stop++;
    const word = (at: number): number => u32(bytes, start + at, little);
    const [low, high] = little ? [word(8), word(12)] : [word(12), word(8)];
    const length = little ? word(16) + word(20) * TWO_32 : word(20) + word(16) * TWO_32;
    this.#frames.mapped(low, high, length, decoder.decode(bytes.subarray(name, stop)));
  }

  #sayWhatIsMissing(): void {
    if (!this.#hasTime) this.#remarks.say("not-said", "samples do not say their time (perf record -T)");
    if (!this.#hasCpu)
      this.#remarks.say(
        "not-said",
        "samples that do not say their CPU are taken as of CPU 0 (perf record --sample-cpu)",
      );
    if (this.#otherType >= 0)
      this.#remarks.say("note", "samples of events that are no tracepoints are counted as perf_sample");
    const { note } = this.timing;
    if (note !== undefined && this.#hasTime) this.#remarks.say("clock", note);
  }
}

function u32(bytes: Uint8Array, at: number, little: boolean): number {
  const [a, b, c, d] = [bytes[at]!, bytes[at + 1]!, bytes[at + 2]!, bytes[at + 3]!];
  return (little ? a | (b << 8) | (c << 16) | (d << 24) : d | (c << 8) | (b << 16) | (a << 24)) >>> 0;
}
