/**
 * A trace.dat file as batches: the pages of all CPUs and buffers, merged by time.
 *
 * Idea: the CPU with the earliest event is drained until another one is earlier, so the choice among CPUs costs nothing
 * while one of them is busy. Equal times keep the order of the file: first buffers, then CPUs.
 * Promises: memory is one window per CPU and one batch. Strict reading stops with an error at the first damage; best
 * effort ends the damaged CPU and reads the others to their end.
 */

import { assert, DmaError } from "../base/index.ts";
import type { Codecs } from "./codecs.ts";
import { Columns } from "./columns.ts";
import { CpuStream, type StreamSetting } from "./cpu-stream.ts";
import { type DatFile, readDatFile } from "./dat-file.ts";
import { damaged, readTwice, type TraceDamage } from "./errors.ts";
import { type EventBatch, type EventField, type EventType, LOST_EVENTS, type Trace } from "./events.ts";
import { FieldPlan } from "./field-plan.ts";
import type { FileInput } from "./input.ts";
import { StringTable } from "./string-table.ts";

/** The one field of a lost-event mark. */
export const LOST_FIELDS: readonly EventField[] = [{ name: "count", kind: "signed" }];

/** How the kernel names a task that it has forgotten. */
const FORGOTTEN_TASK = "<...>";
const MOST_TYPES = 65535;

export class DatTrace implements Trace {
  readonly format: Trace["format"];
  readonly types: EventType[] = [];
  readonly strings: readonly string[];
  readonly buffers: readonly string[];
  readonly clock: string | undefined;
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
  /** Index into `types` by event id, plus one; 0: not seen yet. */
  readonly #typeOf = new Uint16Array(65536);
  readonly #lostType: number;
  readonly #taskOf = new Map<number, number>();
  #forgotten = 0;
  #idOffset = 0;
  #pidOffset = 4;
  /** Bytes of the fields that every event begins with. */
  #commonSize = 8;
  #lost = 0;
  #scale = 1;
  #read = false;

  private constructor(input: FileInput, file: DatFile, codecs: Codecs, bestEffort: boolean, batchSize: number) {
    this.#file = file;
    this.#bestEffort = bestEffort;
    this.#batchSize = batchSize;
    this.format = file.version === 6 ? "trace.dat v6" : "trace.dat v7";
    this.strings = this.#strings.list;
    this.buffers = file.buffers;
    this.clock = file.clock;
    this.cpus = file.cpus;
    this.system = file.system;
    this.damage = file.damage;
    for (const format of file.formats) {
      if (this.#plans[format.id]) continue; // an event that was described twice is the same event
      const plan = new FieldPlan(format);
      this.#plans[format.id] = plan;
      this.types.push(plan.type);
      this.#typeOf[format.id] = this.types.length;
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
      this.#setting = { input, codecs, compression, littleEndian, page, base: 0n };
      for (const extent of file.extents) this.#streams.push(new CpuStream(extent, this.#setting));
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
    return Math.max(this.#lost, this.#file.lost);
  }

  async #start(): Promise<void> {
    let base: bigint | undefined;
    for (const stream of this.#streams) {
      await this.#load(stream);
      const stamp = stream.done ? undefined : stream.firstStamp();
      if (stamp !== undefined && (base === undefined || stamp < base)) base = stamp;
    }
    base ??= 0n;
    if (this.#setting) this.#setting.base = base;
    const cycles = this.#file.cycles;
    if (cycles) {
      this.#scale = cycles.multiplier / 2 ** cycles.shift;
      this.timeBase = ((base * BigInt(cycles.multiplier)) >> BigInt(cycles.shift)) + cycles.offset;
    } else this.timeBase = base;
    this.timeBase += this.#file.timeOffset;
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
    const columns = new Columns(this.#batchSize);
    const live: CpuStream[] = [];
    for (const stream of this.#streams) if (await this.#advance(stream)) live.push(stream);
    while (live.length > 0) {
      let first = 0;
      for (let i = 1; i < live.length; i++) if (live[i]!.timeNs < live[first]!.timeNs) first = i;
      let limit = Number.POSITIVE_INFINITY;
      let before = true; // whether the next one comes after `first` in the file, and so yields at equal times
      for (let i = 0; i < live.length; i++)
        if (i !== first && live[i]!.timeNs < limit) {
          limit = live[i]!.timeNs;
          before = i > first;
        }
      const stream = live[first]!;
      const state = this.#drain(stream, columns, limit, before);
      if (state === FULL) {
        yield columns;
        columns.clear();
      } else if (state === EMPTY && !(await this.#advance(stream))) live.splice(first, 1);
    }
    if (columns.count > 0) yield columns;
  }

  /** Brings `stream` to its next event, loading as needed; false at its end. */
  async #advance(stream: CpuStream): Promise<boolean> {
    while (!stream.advance()) {
      if (stream.damage) this.#note(stream.damage);
      if (stream.done) return false;
      await this.#load(stream);
    }
    return true;
  }

  /** Appends the stream's events up to `limit`. */
  #drain(stream: CpuStream, columns: Columns, limit: number, before: boolean): number {
    const little = this.#file.littleEndian;
    const { cpu, buffer, bytes, words } = stream;
    const plans = this.#plans;
    const strings = this.#strings;
    const idWord = this.#idOffset >>> 2;
    const idShift = ((this.#idOffset & 2) !== 0) === little ? 16 : 0;
    const pidWord = this.#pidOffset >>> 2;
    const scale = this.#scale;
    let lastPid = -1;
    let task = this.#forgotten;
    do {
      const start = stream.recordStart;
      const end = stream.recordEnd;
      if (stream.missed !== 0 && !this.#mark(stream, columns)) return FULL;
      if (end - start < this.#commonSize) {
        stream.fail(start, `expected an event of at least ${this.#commonSize} bytes, found ${end - start}`);
        return EMPTY;
      }
      const base = start >>> 2;
      const id = (words[base + idWord]! >>> idShift) & 0xffff;
      const plan = plans[id] ?? this.#undescribed(id);
      if (end - start < plan.least) {
        stream.fail(start, `${plan.type.name}: expected ${plan.least} bytes, found ${end - start}`);
        return EMPTY;
      }
      if (!columns.fits(plan.wordsFor(end - start))) return FULL;
      const row = columns.count;
      columns.start[row] = columns.used;
      const wrong = plan.read(bytes, words, little, start, end, columns, strings);
      if (wrong !== undefined) {
        stream.fail(start, wrong);
        return EMPTY;
      }
      const pid = words[base + pidWord]! | 0;
      if (pid !== lastPid) {
        lastPid = pid;
        task = this.#taskOf.get(pid) ?? this.#forgotten;
      }
      columns.type[row] = this.#typeOf[id]! - 1;
      columns.cpu[row] = cpu;
      columns.pid[row] = pid;
      columns.task[row] = task;
      columns.buffer[row] = buffer;
      columns.timeNs[row] = scale === 1 ? stream.timeNs : Math.floor(stream.timeNs * scale);
      columns.count = row + 1;
      if (!stream.advance()) return EMPTY;
    } while (stream.timeNs < limit || (before && stream.timeNs === limit));
    return LATER;
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
    columns.timeNs[row] = this.#scale === 1 ? stream.timeNs : Math.floor(stream.timeNs * this.#scale);
    if (stream.missed > 0) this.#lost += stream.missed;
    stream.missed = 0;
    return true;
  }

  /** An event whose module was loaded after the formats were written: its name is not known, its time is. */
  #undescribed(id: number): FieldPlan {
    const plan = new FieldPlan({ system: "", name: `event_${id}`, id, common: [], fields: [] });
    this.#plans[id] = plan;
    this.types.push(plan.type);
    assert(this.types.length <= MOST_TYPES + 1, "an event id has 16 bits");
    this.#typeOf[id] = this.types.length;
    return plan;
  }
}

/** Why draining stopped: the batch is full, the stream needs loading or is done, or another stream is earlier. */
const FULL = 0;
const EMPTY = 1;
const LATER = 2;
