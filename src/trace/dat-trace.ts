/**
 * A trace.dat file as batches: the pages of all CPUs and buffers, merged by time.
 *
 * Idea: the CPU with the earliest event is drained until another one is earlier, so the choice among CPUs costs nothing
 * while one of them is busy. Equal times keep the order of the file: first buffers, then CPUs.
 * Promises: memory is one window per CPU and one batch. Strict reading stops with an error at the first damage; best
 * effort ends the damaged CPU and reads the others to their end.
 */

import { DmaError } from "../base/index.ts";
import type { CallChain } from "./call-chain.ts";
import { isStrange } from "./catalogue.ts";
import { AwaitingChain, ChainTable, LINGER } from "./chains.ts";
import type { Codecs } from "./codecs.ts";
import { Columns } from "./columns.ts";
import { CpuStream, type StreamSetting } from "./cpu-stream.ts";
import { readDatFile } from "./dat-file.ts";
import type { DatFile } from "./dat-metadata.ts";
import { damaged, readTwice, type TraceDamage } from "./errors.ts";
import { type EventBatch, type EventType, LOST_EVENTS, LOST_FIELDS, type Trace } from "./events.ts";
import { FieldPlan } from "./field-plan.ts";
import type { FileInput } from "./input.ts";
import { type Remark, Remarks } from "./remarks.ts";
import { StackRecords } from "./stack-records.ts";
import { StreamHeap } from "./stream-heap.ts";
import { StringTable } from "./string-table.ts";
import { Symbols } from "./symbols.ts";
import { LAST_NS, LAST_STAMP, type Timing, TimingOf, timeBaseFor } from "./timing.ts";

/** How the kernel names a task that it has forgotten. */
const FORGOTTEN_TASK = "<...>";

export class DatTrace implements Trace {
  readonly format: Trace["format"];
  readonly types: EventType[] = [];
  readonly strings: readonly string[];
  readonly buffers: readonly string[];
  readonly chains: readonly CallChain[];
  readonly clock: string | undefined;
  readonly longBytes: number | undefined;
  readonly cpus: number | undefined;
  readonly system: string | undefined;
  timeBase = 0n;
  damage: TraceDamage | undefined;

  readonly #file: DatFile;
  readonly #strings = new StringTable();
  readonly #bestEffort: boolean;
  readonly #batchSize: number;
  readonly #setting: StreamSetting | undefined;
  readonly #streams: CpuStream[] = [];
  /** Field plan by event id. */
  readonly #plans: (FieldPlan | undefined)[] = new Array(65536).fill(undefined);
  /** Index into `types` by event id. */
  readonly #typeOf = new Uint32Array(65536);
  /** Event ids whose type bears a catalogued name and is not understood. */
  readonly #strange = new Set<number>();
  readonly #chains = new ChainTable();
  readonly #awaiting = new AwaitingChain();
  readonly #stacks: StackRecords | undefined;
  readonly #remarks = new Remarks();
  readonly #timing: TimingOf;
  #lastTime = 0;
  readonly #lostType: number;
  readonly #taskOf = new Map<number, number>();
  #forgotten = 0;
  #idOffset = 0;
  #pidOffset = 4;
  /** Bytes of the fields that every event begins with. */
  #commonSize = 8;
  #lost = 0;
  #lostUnknown = false;
  #scale = 1;
  #read = false;

  private constructor(input: FileInput, file: DatFile, codecs: Codecs, bestEffort: boolean, batchSize: number) {
    this.#file = file;
    this.#bestEffort = bestEffort;
    this.#batchSize = batchSize;
    this.format = file.version === 6 ? "trace.dat v6" : "trace.dat v7";
    this.strings = this.#strings.list;
    this.buffers = file.buffers;
    this.chains = this.#chains.list;
    this.clock = file.clock;
    this.longBytes = file.longSize;
    this.#timing = new TimingOf(file.clock, file.cycles !== undefined);
    this.#stacks = StackRecords.of(file.formats, file.longSize, file.littleEndian, this.#chains);
    this.cpus = file.cpus;
    this.system = file.system;
    this.damage = file.damage;
    for (const format of file.formats) {
      if (this.#plans[format.id]) continue; // an event that was described twice is the same event
      const plan = new FieldPlan(format);
      this.#plans[format.id] = plan;
      this.#typeOf[format.id] = this.types.push(plan.type) - 1;
      if (isStrange(plan.type)) this.#strange.add(format.id);
    }
    this.#lostType = this.types.push({ id: -1, system: "", name: LOST_EVENTS, fields: LOST_FIELDS }) - 1;
    this.#strings.intern("");
    this.#forgotten = this.#strings.intern(FORGOTTEN_TASK);
    this.#taskOf.set(0, this.#strings.intern("<idle>"));
    for (const [pid, name] of file.tasks) this.#taskOf.set(pid, this.#strings.intern(name));
    for (const field of file.formats[0]?.common ?? []) {
      if (field.name === "common_type" && field.size === 2) this.#idOffset = field.offset;
      if (field.name === "common_pid" && field.size === 4 && field.offset % 4 === 0) this.#pidOffset = field.offset;
      this.#commonSize = Math.max(this.#commonSize, field.offset + field.size);
    }
    if (file.page) {
      const { littleEndian, compression, page } = file;
      this.#setting = { input, codecs, compression, littleEndian, page, base: 0n, held: 0 };
      for (const extent of file.extents) this.#streams.push(new CpuStream(extent, this.#setting, this.#streams.length));
    }
  }

  /** Reads the metadata and the first window of every CPU. Errors: as {@link readDatFile}. */
  static async open(input: FileInput, codecs: Codecs, bestEffort: boolean, batchSize: number): Promise<DatTrace> {
    const file = await readDatFile(input, codecs, bestEffort);
    const trace = new DatTrace(input, file, codecs, bestEffort, batchSize);
    for (const { offset, size, cpu } of file.extents)
      if (offset + size > input.size)
        trace.#note({
          offset: input.size,
          message: `expected the pages of CPU ${cpu} up to offset ${offset + size}, the file ends at ${input.size}`,
        });
    await trace.#start();
    return trace;
  }

  get lost(): number {
    const counted = Math.max(this.#lost, this.#file.lost);
    return counted === 0 && this.#lostUnknown ? -1 : counted;
  }

  get remarks(): readonly Remark[] {
    return this.#remarks.list;
  }

  get timing(): Timing {
    return this.#timing.value;
  }

  async #start(): Promise<void> {
    let base: bigint | undefined;
    for (const stream of this.#streams) {
      await this.#load(stream);
      const stamp = stream.done ? undefined : stream.firstStamp();
      if (stamp !== undefined && (base === undefined || stamp < base)) base = stamp;
    }
    base = timeBaseFor(base ?? 0n);
    if (this.#setting) this.#setting.base = base;
    const cycles = this.#file.cycles;
    if (cycles) {
      this.#scale = cycles.multiplier / 2 ** cycles.shift;
      this.timeBase = ((base * BigInt(cycles.multiplier)) >> BigInt(cycles.shift)) + cycles.offset;
    } else this.timeBase = base;
    this.timeBase += this.#file.timeOffset;
    if (this.timeBase > LAST_STAMP || this.timeBase < -LAST_STAMP) {
      this.#note({ offset: 0, message: `times from ${this.timeBase} ns on do not fit into 63 bits` });
      this.timeBase = 0n;
    }
  }

  async #load(stream: CpuStream): Promise<void> {
    try {
      await stream.load();
    } catch (error) {
      if (!this.#bestEffort || !(error instanceof DmaError)) throw error;
      stream.done = true;
      const { offset, message } = error.details as unknown as TraceDamage;
      stream.damage = { offset, message };
    }
    if (stream.damage) this.#note(stream.damage);
  }

  #note(damage: TraceDamage): void {
    if (!this.#bestEffort) throw damaged(damage.offset, damage.message);
    if (!this.damage || damage.offset < this.damage.offset) this.damage = damage;
  }

  async *batches(): AsyncGenerator<EventBatch> {
    if (this.#read) throw readTwice();
    this.#read = true;
    const columns = new Columns(this.#batchSize + LINGER);
    const live = new StreamHeap<CpuStream>();
    for (const stream of this.#streams) if (await this.#advance(stream)) live.push(stream);
    for (let stream = live.first; stream; stream = live.first) {
      const next = live.second;
      const before = next !== undefined && stream.order < next.order; // at equal times the file's order
      const state = this.#drain(stream, columns, next?.timeNs ?? Number.POSITIVE_INFINITY, before);
      if (state === FULL) {
        yield columns;
        columns.clear();
        this.#awaiting.clear();
      } else if (state === STACK) await this.#stack(stream, columns);
      else if (state === EMPTY && !(await this.#advance(stream, columns))) live.dropFirst();
      else live.firstIsLater();
    }
    if (columns.count > 0) yield columns;
    const { note } = this.timing;
    if (note !== undefined) this.#remarks.say("clock", note);
  }

  /** The first stack of the file: names are read now, if the file has them. */
  async #stack(stream: CpuStream, columns: Columns): Promise<void> {
    const read = this.#file.symbols;
    this.#file.symbols = undefined;
    if (read && this.#stacks) {
      try {
        this.#stacks.symbols = new Symbols(await read());
      } catch (error) {
        if (!this.#bestEffort || !(error instanceof DmaError)) throw error;
        const { offset, message } = error.details as unknown as TraceDamage;
        this.#note({ offset, message });
      }
    }
    this.#absorb(stream, columns);
    if (!stream.hasRecord) await this.#advance(stream, columns);
  }

  /**
   * Takes the stacks at the stream's position: each belongs to the last event of its CPU that has none. False: the names of
   * functions must be read first.
   */
  #absorb(stream: CpuStream, columns: Columns): boolean {
    const stacks = this.#stacks;
    if (!stacks) return true;
    while (stream.hasRecord && this.#idOf(stream) === stacks.id) {
      if (this.#file.symbols) return false;
      const row = this.#awaiting.take(stream.cpu, stream.buffer, columns);
      const chain = stacks.read(stream.words, stream.recordStart, stream.recordEnd);
      if (row < 0) this.#remarks.count("chain-without-event");
      else if (columns.chain[row] === 0) columns.chain[row] = chain;
      stream.advance();
    }
    return true;
  }

  #idOf(stream: CpuStream): number {
    const shift = ((this.#idOffset & 2) !== 0) === this.#file.littleEndian ? 16 : 0;
    return (stream.words[(stream.recordStart + this.#idOffset) >>> 2]! >>> shift) & 0xffff;
  }

  /** Brings `stream` to its next event, loading as needed; false at its end. */
  async #advance(stream: CpuStream, columns?: Columns): Promise<boolean> {
    for (;;) {
      if (stream.advance()) {
        // A stack at the beginning of a window belongs to the event at the end of the one before.
        if (columns && !this.#absorb(stream, columns)) return true;
        if (stream.hasRecord) return true;
      }
      if (stream.damage) this.#note(stream.damage);
      if (stream.done) return false;
      await this.#load(stream);
    }
  }

  /** Appends the stream's events up to `limit`, and at it where the stream comes `before` the next one. */
  #drain(stream: CpuStream, columns: Columns, limit: number, before: boolean): number {
    const little = this.#file.littleEndian;
    const { cpu, buffer } = stream;
    const plans = this.#plans;
    const strings = this.#strings;
    const pidWord = this.#pidOffset >>> 2;
    const stackId = this.#stacks?.id ?? -1;
    let lastPid = -1;
    let task = this.#forgotten;
    do {
      const { bytes, words, recordStart: start, recordEnd: end } = stream;
      if (stream.missed !== 0 && !this.#mark(stream, columns)) return FULL;
      if (end - start < this.#commonSize) {
        stream.fail(start, `expected an event of at least ${this.#commonSize} bytes, found ${end - start}`);
        return EMPTY;
      }
      const id = this.#idOf(stream);
      if (id === stackId) {
        if (!this.#absorb(stream, columns)) return STACK;
        if (!stream.hasRecord) return EMPTY;
        continue;
      }
      const plan = plans[id] ?? this.#undescribed(id);
      if (end - start < plan.least) {
        stream.fail(start, `${plan.type.name}: expected ${plan.least} bytes, found ${end - start}`);
        return EMPTY;
      }
      if (this.#isFull(columns) || !columns.fits(plan.wordsFor(end - start))) return FULL;
      const row = columns.count;
      columns.start[row] = columns.used;
      const wrong = plan.read(bytes, words, little, start, end, columns, strings);
      if (wrong !== undefined) {
        stream.fail(start, wrong);
        return EMPTY;
      }
      const time = this.#timeOf(stream);
      if (time > LAST_NS) {
        stream.fail(start, "a time that is further from the first than times can be told apart (104 days)");
        return EMPTY;
      }
      const pid = words[(start >>> 2) + pidWord]! | 0;
      if (pid !== lastPid) {
        lastPid = pid;
        task = this.#taskOf.get(pid) ?? this.#forgotten;
      }
      columns.type[row] = this.#typeOf[id]!;
      columns.cpu[row] = cpu;
      columns.pid[row] = pid;
      columns.task[row] = task;
      columns.buffer[row] = buffer;
      columns.chain[row] = 0;
      columns.timeNs[row] = time;
      columns.count = row + 1;
      if (time < this.#lastTime) this.#remarks.count("time-back");
      this.#lastTime = time;
      if (this.#timing.isLooking) this.#timing.see(time);
      if (this.#strange.size > 0 && this.#strange.has(id)) this.#remarks.count("unknown-form", plan.type.name);
      if (this.#awaiting.isOn) this.#awaiting.event(cpu, buffer, row);
      if (!stream.advance()) return EMPTY;
      if (!this.#absorb(stream, columns)) return STACK;
      if (!stream.hasRecord) return EMPTY;
    } while (stream.timeNs < limit || (before && stream.timeNs === limit));
    return LATER;
  }

  /** A batch that is full waits a little for the stacks of its last events. */
  #isFull(columns: Columns): boolean {
    return columns.count >= this.#batchSize && !(this.#awaiting.isWaiting && columns.count < columns.rows);
  }

  #timeOf(stream: CpuStream): number {
    return this.#scale === 1 ? stream.timeNs : Math.floor(stream.timeNs * this.#scale);
  }

  /** Appends the mark for events that were missed before the current one. */
  #mark(stream: CpuStream, columns: Columns): boolean {
    if (!columns.fits(2)) return false;
    const row = columns.count++;
    columns.start[row] = columns.used;
    columns.words[columns.used++] = stream.missed;
    columns.words[columns.used++] = stream.missed < 0 ? 0xffff_ffff : 0;
    columns.type[row] = this.#lostType;
    columns.cpu[row] = stream.cpu;
    columns.pid[row] = 0;
    columns.task[row] = 0;
    columns.buffer[row] = stream.buffer;
    columns.chain[row] = 0;
    columns.timeNs[row] = Math.min(LAST_NS, this.#timeOf(stream));
    if (stream.missed > 0) this.#lost += stream.missed;
    else this.#lostUnknown = true;
    stream.missed = 0;
    return true;
  }

  /** An event whose module was loaded after the formats were written: its name is not known, its time is. */
  #undescribed(id: number): FieldPlan {
    const plan = new FieldPlan({ system: "", name: `event_${id}`, id, common: [], fields: [] });
    this.#plans[id] = plan;
    this.#typeOf[id] = this.types.push(plan.type) - 1;
    return plan;
  }
}

/** Why draining stopped: the batch is full, the stream needs loading or is done, another stream is earlier. */
const FULL = 0;
const EMPTY = 1;
const LATER = 2;
/** A stack stands next, and names of functions were not read yet. */
const STACK = 3;
