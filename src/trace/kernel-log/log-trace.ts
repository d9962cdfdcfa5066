/**
 * A kernel log as a trace: every message is a `printk:console` event, as the kernel's own trace event of that name has it.
 *
 * Idea: who reads messages reads them from a trace and from a log in the same way; a log is then an input like any other. The event has
 * the number of its line and its level besides. Promises: memory is one batch and the distinct messages (bounded).
 * Knows: a log without times has none: all its events are at 0, and `clock` says "none". Messages of programs that are not the kernel are
 * counted, not delivered. A log over several boots starts again at a small time: what comes then is told as going on from there.
 */
import type { CallChain } from "../call-chain.ts";
import { Columns } from "../columns.ts";
import { readTwice, type TraceDamage } from "../errors.ts";
import { type EventBatch, type EventType, LOST_EVENTS, type Trace } from "../events.ts";
import type { Remark } from "../remarks.ts";
import { StringTable } from "../string-table.ts";
import type { Timing } from "../timing.ts";
import { type LogClock, type LogFront, LogFronts } from "./line-front.ts";
import { logLines } from "./lines.ts";
import { LogRecords } from "./records.ts";

/** The event's name, and its field with the message. */
export const CONSOLE_EVENT = "console";
/** The field of {@link CONSOLE_EVENT} with the message. */
export const CONSOLE_FIELD = "msg";

/** A step back by more than this is another boot; lines of several processors may be a little out of order. */
const REBOOT_NS = 10e9;
const SECOND_NS = 1e9;
/** No level was printed. */
const NO_LEVEL = 0xff;
/** Index of the console event in `types`; 0 is the mark of lost events, as in every trace. */
const CONSOLE = 1;

/** A kernel log as a trace of `printk:console` events. */
export class KernelLogTrace implements Trace {
  readonly format = "kernel log";
  /** Lost events, and messages: `printk:console` with text, line and level. */
  readonly types: readonly EventType[] = [
    { id: -1, system: "", name: LOST_EVENTS, fields: [{ name: "count", kind: "signed" }] },
    {
      id: 1,
      system: "printk",
      name: CONSOLE_EVENT,
      fields: [
        { name: CONSOLE_FIELD, kind: "string" },
        { name: "line", kind: "unsigned" },
        { name: "level", kind: "unsigned" },
      ],
    },
  ];
  readonly strings: readonly string[];
  readonly buffers: readonly string[] = [""];
  readonly chains: readonly CallChain[] = [[]];
  readonly cpus: number | undefined = undefined;
  readonly longBytes: number | undefined = undefined;
  readonly remarks: readonly Remark[] = [];
  readonly system: string | undefined = undefined;
  readonly lost = 0;
  readonly damage: TraceDamage | undefined = undefined;
  /** "dmesg": seconds since boot; "wall": a date; "none": the lines have no time. */
  clock: "dmesg" | "wall" | "none" = "none";
  timeBase = 0n;
  /** How fine the times are printed, nanoseconds; 0 without times. */
  resolutionNs = 0;
  /** Lines of programs that are not the kernel. */
  otherLines = 0;
  /** Lines that have in front what only a kernel's log has. */
  sureLines = 0;
  readonly #chunks: AsyncIterable<Uint8Array>;
  readonly #batchSize: number;
  readonly #strings = new StringTable();
  readonly #fronts = new LogFronts();
  readonly #records = new LogRecords();
  #clock: LogClock = "none";
  #baseSeconds = 0;
  #bootsNs = 0;
  #lastNs = 0;
  #read = false;

  /** Reads nothing before {@link batches}. */
  constructor(chunks: AsyncIterable<Uint8Array>, batchSize: number) {
    this.#chunks = chunks;
    this.#batchSize = batchSize;
    this.strings = this.#strings.list;
    this.#strings.intern("");
  }

  get timing(): Timing {
    return this.clock === "none"
      ? { kind: "none", stepNs: 0, note: "the lines of this log have no times" }
      : { kind: "time", stepNs: this.resolutionNs, note: undefined };
  }

  async *batches(): AsyncGenerator<EventBatch> {
    if (this.#read) throw readTwice();
    this.#read = true;
    const columns = new Columns(this.#batchSize);
    for await (const { number, text } of logLines(this.#chunks)) {
      const record = this.#records.read(text);
      if (record === "taken") continue;
      const front = record === "not-a-record" ? this.#fronts.read(text) : record;
      if (!this.#take(front, number, columns)) continue;
      if (columns.fits(FIELD_WORDS)) continue;
      yield columns;
      columns.clear();
    }
    const last = this.#records.finish();
    if (last) this.#take(last, 0, columns);
    if (columns.count > 0) yield columns;
  }

  /** Appends the message; false where it is none of the kernel's. There is room for one. */
  #take(
    { kernel, sure, message, clock, seconds, nanoseconds, resolutionNs, level }: LogFront,
    line: number,
    columns: Columns,
  ): boolean {
    if (JOURNAL_ASIDE.test(message)) return false;
    if (!kernel) {
      this.otherLines++;
      return false;
    }
    if (sure) this.sureLines++;
    const row = columns.count;
    columns.start[row] = columns.used;
    columns.type[row] = CONSOLE;
    columns.cpu[row] = 0;
    columns.pid[row] = 0;
    columns.task[row] = 0;
    columns.buffer[row] = 0;
    columns.chain[row] = 0;
    columns.timeNs[row] = this.#time(clock, seconds, nanoseconds, resolutionNs);
    for (const value of [this.#strings.intern(message), line, level ?? NO_LEVEL]) {
      columns.words[columns.used++] = value;
      columns.words[columns.used++] = 0;
    }
    columns.count = row + 1;
    return true;
  }

  #time(clock: LogClock, seconds: number, nanoseconds: number, resolutionNs: number): number {
    if (clock === "none" || (this.#clock !== "none" && clock !== this.#clock)) return this.#lastNs;
    if (this.#clock === "none") {
      this.#clock = clock;
      this.clock = clock === "boot" ? "dmesg" : "wall";
      this.#baseSeconds = seconds;
      this.timeBase = BigInt(seconds) * 1_000_000_000n;
    }
    this.resolutionNs = Math.max(this.resolutionNs, resolutionNs);
    let timeNs = (seconds - this.#baseSeconds) * SECOND_NS + nanoseconds + this.#bootsNs;
    if (clock === "boot" && timeNs < this.#lastNs - REBOOT_NS) {
      this.#bootsNs += this.#lastNs - timeNs;
      timeNs = this.#lastNs;
    }
    this.#lastNs = Math.max(0, timeNs);
    return this.#lastNs;
  }
}

const FIELD_WORDS = 6;

/** What journalctl says between the lines. */
const JOURNAL_ASIDE = /^(?:-- (?:Logs begin|Journal begins|Boot |Reboot|No entries|cursor:)|\[s=[0-9a-f]{1,40};i=)/;
