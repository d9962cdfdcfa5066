/**
 * Printed traces as batches: tracefs `trace` and `trace_pipe`, `trace-cmd report`, `perf script`.
 *
 * Idea: lines are read as bytes, in place. A line's front says who, where and when (front.ts); a catalogued event is matched
 * against the templates of its print formats and gives the fields of the binary event; where none fits, its loose fields are
 * read by name; any other event gives its `name=value` pairs, or one string field `text`.
 * Promises: linear in the text; memory is one window of text, one batch, and the distinct strings (bounded). Lines keep the
 * file's order. A line that is not understood is counted and shown, and never taken for another.
 * Not for: times finer than printed (microseconds as a rule).
 */

import type { CallChain } from "../call-chain.ts";
import { isStrange } from "../catalogue.ts";
import { LINGER } from "../chains.ts";
import { Columns } from "../columns.ts";
import { damaged, readTwice, type TraceDamage } from "../errors.ts";
import { type EventBatch, type EventType, LOST_EVENTS, LOST_FIELDS, type Trace } from "../events.ts";
import { type Remark, Remarks } from "../remarks.ts";
import type { StringTable } from "../string-table.ts";
import { LAST_NS, type Timing, TimingOf } from "../timing.ts";
import { asideOf } from "./asides.ts";
import { ChainLines, mayBeFrame } from "./chain-lines.ts";
import { EVENT, type Front, FUNCTION, NOTHING, RECORD, STACK, USER_STACK } from "./front.ts";
import type { TextHead } from "./head.ts";
import type { Lines } from "./lines.ts";
import { catalogued, type LooseFields, payloadOf, uncatalogued, withoutSite } from "./loose-fields.ts";
import { putLoose } from "./loose-words.ts";
import { type NamedEvent, NamedEvents } from "./named-events.ts";
import { ValueReader } from "./values.ts";
import { SAYS_CPU, SAYS_PID, SAYS_TASK, SAYS_TIME } from "./who.ts";

const LONGEST_LINE = 1 << 20;
const SECOND = 1e9;
const CHUNKS_LOST = -1;

const decoder = new TextDecoder();

/** What one line was. */
const NO_ROOM = 0;
const TAKEN = 1;
const WRONG = 2;

/** What tracefs prints under `options/raw` and `options/hex`: process, CPU, stamp and the number of the event. */
const RAW_LINE = /^[0-9a-f]+ [0-9a-f]+ [0-9a-f]+ type: \d+$/;

/** Free text: the lines behind may be its own. */
const FREE_TEXT = new Set(["tracing_mark_write", "print", "bprint", "bputs", "console"]);

export class TextTrace implements Trace {
  readonly format: Trace["format"];
  readonly types: EventType[];
  readonly strings: readonly string[];
  readonly buffers: readonly string[];
  readonly chains: readonly CallChain[];
  readonly clock: string | undefined = undefined;
  cpus: number | undefined;
  readonly longBytes: number | undefined = undefined;
  readonly system: string | undefined = undefined;
  readonly timeBase: bigint;
  damage: TraceDamage | undefined;

  readonly #lines: Lines;
  readonly #bestEffort: boolean;
  readonly #batchSize: number;
  readonly #strings: StringTable;
  readonly #events: NamedEvents;
  readonly #front: Front;
  readonly #values = new ValueReader();
  readonly #remarks = new Remarks();
  readonly #timing = new TimingOf();
  readonly #chains = new ChainLines();
  readonly #head: TextHead;
  readonly #baseSeconds: number;
  #next = 0;
  #lastTime = 0;
  /** Of stamps that are differences: added up. */
  #sumNs = 0;
  /** What follows and is no event may be the rest of the last one. */
  #afterFreeText = false;
  #lostCount = 0;
  #lostUnknown = false;
  #saidAll = SAYS_TASK | SAYS_PID | SAYS_CPU | SAYS_TIME;
  #read = false;
  #wrong = "";

  constructor(
    lines: Lines,
    front: Front,
    strings: StringTable,
    head: TextHead,
    bestEffort: boolean,
    batchSize: number,
  ) {
    this.#lines = lines;
    this.#front = front;
    this.#strings = strings;
    this.#head = head;
    this.#bestEffort = bestEffort;
    this.#batchSize = batchSize;
    this.format = head.format;
    this.cpus = head.cpus;
    this.timeBase = BigInt(head.baseSeconds) * 1_000_000_000n;
    this.#baseSeconds = head.baseSeconds;
    this.types = [{ id: -1, system: "", name: LOST_EVENTS, fields: LOST_FIELDS }];
    this.#events = new NamedEvents(this.types);
    this.strings = strings.list;
    this.buffers = front.buffers.list;
    this.chains = this.#chains.list;
    if (head.isDifference)
      this.#timing.note =
        "stamps are differences to the event before (perf script --deltatime): times are their sum, each rounded";
  }

  get lost(): number {
    return this.#lostCount === 0 && this.#lostUnknown ? -1 : this.#lostCount;
  }

  get remarks(): readonly Remark[] {
    return this.#remarks.list;
  }

  get timing(): Timing {
    const timing = this.#timing.value;
    if ((this.#saidAll & SAYS_TIME) === 0 && this.#timing.kind === "time")
      return { kind: "none", stepNs: 0, note: "some or all events have no time" };
    return timing;
  }

  async *batches(): AsyncGenerator<EventBatch> {
    if (this.#read) throw readTwice();
    this.#read = true;
    try {
      yield* this.#batches();
      this.#sayWhatIsMissing();
    } finally {
      await this.#lines.close(); // a consumer may leave early: the stream is not its own to close
    }
  }

  async *#batches(): AsyncGenerator<EventBatch> {
    const lines = this.#lines;
    const columns = new Columns(this.#batchSize + LINGER);
    for (;;) {
      const state = this.#take(columns);
      if (state === NO_ROOM) {
        yield columns;
        columns.clear();
        this.#chains.awaiting.clear();
        continue;
      }
      if (state === TAKEN && lines.to - lines.from > LONGEST_LINE)
        this.#wrong = `expected the end of a line within ${LONGEST_LINE} bytes`;
      else if (state === TAKEN && !lines.ended) {
        await lines.fill();
        continue;
      } else if (state === TAKEN) {
        if (lines.from === lines.to) break;
        this.#wrong = `expected a newline at the end of the last line (${lines.to - lines.from} bytes): it may be cut`;
      }
      const offset = lines.offset + lines.from;
      if (!this.#bestEffort) throw damaged(offset, this.#wrong);
      this.damage = { offset, message: this.#wrong };
      break;
    }
    this.#chains.end(columns);
    if (columns.count > 0) yield columns;
  }

  /** Takes the whole lines of the window. NO_ROOM: the batch is full. WRONG: the line at `from` makes no sense. */
  #take(columns: Columns): number {
    const lines = this.#lines;
    this.#values.bytes = lines.bytes;
    while (lines.from < lines.whole) {
      const state = this.#line(lines.from, columns);
      if (state !== TAKEN) return state;
      const wasEmpty = this.#next === lines.from + 1;
      lines.from = this.#next;
      lines.line++;
      if (wasEmpty) lines.skipEmpty(); // what one says a thousand do not say otherwise
    }
    return TAKEN;
  }

  /** Takes the line at `start`, and sets #next. */
  #line(start: number, columns: Columns): number {
    const { bytes } = this.#lines;
    if (this.#chains.isOpen && this.#frameLine(bytes, start)) return TAKEN;
    const front = this.#front;
    const kind = front.read(bytes, start);
    if (kind === EVENT) return this.#event(start, columns);
    const newline = this.#lines.endOf(start);
    this.#next = newline + 1;
    if (kind === NOTHING) {
      this.#chains.end(columns);
      return this.#otherLine(start, newline, columns);
    }
    this.#chains.end(columns);
    this.#afterFreeText = false;
    if (kind === FUNCTION) return this.#function(newline, columns);
    if (kind === STACK) this.#beginStack(columns);
    else if (kind === USER_STACK) this.#chains.beginUser();
    else if (kind === RECORD) return this.#record(start, newline, columns);
    return TAKEN;
  }

  #event(start: number, columns: Columns): number {
    const front = this.#front;
    const { bytes } = this.#lines;
    this.#chains.end(columns);
    const event = this.#events.at(bytes, front.nameStart, front.nameEnd);
    if (event.isStack) {
      this.#afterFreeText = false;
      return this.#stackEvent(front.payload, columns);
    }
    if (this.#isFull(columns)) return NO_ROOM;
    const row = columns.count;
    const at = columns.used;
    let type = -1;
    for (let i = 0; i < event.templates.length && type < 0; i++) {
      const template = event.templates[i]!;
      if (!columns.fits(template.fields.length * 2)) return NO_ROOM;
      if (this.#values.match(template, front.payload, columns, this.#strings)) type = this.#events.typeOf(event, i);
    }
    let isRaw = false;
    if (type < 0) {
      const newline = this.#lines.endOf(start);
      this.#next = newline + 1;
      const state = this.#loose(event, newline, columns);
      if (state !== TAKEN) return state;
      type = this.#looseType;
      isRaw = event.templates.length === 0;
      if (type < 0) return this.#otherLine(start, newline, columns);
    } else {
      this.#next = this.#values.at + 1;
      this.#aside();
    }
    this.#afterFreeText = isRaw && FREE_TEXT.has(event.name);
    const state = this.#append(columns, type, at);
    if (state !== TAKEN) return state;
    const { siteFrom, siteTo } = this.#values;
    if (siteTo > 0 && event.templates.length > 0 && !isRaw)
      columns.chain[row] = this.#chains.single(bytes, siteFrom, siteTo);
    else if (this.#head.hasPerfChains) this.#chains.beginBelow(row);
    return TAKEN;
  }

  /** What the reader of values met beside the values. */
  #aside(): void {
    const { unknownFrom, unknownTo } = this.#values;
    if (unknownTo === unknownFrom) return;
    const word = decoder.decode(this.#lines.bytes.subarray(unknownFrom, unknownTo));
    this.#remarks.count("unknown-value", `attrs=${word}`, this.#lines.line);
  }

  #isFull(columns: Columns): boolean {
    if (columns.count < this.#batchSize) return false;
    return !(this.#chains.awaiting.isWaiting && columns.count < columns.rows);
  }

  /** Ends the row whose words are in [at, used). */
  #append(columns: Columns, type: number, at: number): number {
    const { who, stamp, says, buffer } = this.#front;
    const row = columns.count;
    if (says !== SAYS_EVERYTHING) this.#saidAll &= says;
    if ((says & SAYS_TIME) !== 0) {
      let time = (stamp.seconds - this.#baseSeconds) * SECOND + stamp.nanoseconds;
      if (this.#head.isDifference) {
        this.#sumNs += stamp.seconds * SECOND + stamp.nanoseconds;
        time = this.#sumNs;
      }
      if (time < 0 || time > LAST_NS) {
        columns.used = at;
        this.#wrong = "a stamp is further from the first than times can be told apart (104 days)";
        return WRONG;
      }
      if (time < this.#lastTime) this.#remarks.count("time-back", "", this.#lines.line);
      if (stamp.isCount && this.#timing.kind === "time") {
        this.#timing.kind = "count";
        this.#timing.note =
          "stamps have no unit (a clock that counts, or trace-cmd report --raw-ts): they order the events and are no times";
      }
      this.#lastTime = time;
      if (this.#timing.isLooking) this.#timing.see(time);
    }
    columns.start[row] = at;
    columns.type[row] = type;
    columns.cpu[row] = who.cpu;
    columns.pid[row] = who.pid;
    columns.task[row] = who.task;
    columns.buffer[row] = buffer;
    columns.chain[row] = 0;
    columns.timeNs[row] = this.#lastTime;
    columns.count = row + 1;
    if (this.#chains.awaiting.isOn) this.#chains.awaiting.event(who.cpu, buffer, row);
    return TAKEN;
  }

  #looseType = 0;

  /** An event outside the catalogue, or in a form that no template has. #looseType is -1 where a bare line is no event. */
  #loose(event: NamedEvent, newline: number, columns: Columns): number {
    const lines = this.#lines;
    const { front, isCatalogued } = { front: this.#front, isCatalogued: event.templates.length > 0 };
    let text = decoder.decode(lines.bytes.subarray(front.payload, lines.textEnd(front.payload, newline)));
    if (front.isComment) text = text.replace(/ *\*\/ *$/, "");
    const payload = payloadOf(isCatalogued ? withoutSite(text) : text);
    let loose: LooseFields | undefined;
    // `map` and `unmap` are names that others use, too.
    const isOurs = isCatalogued && (event.name.includes("_") || text.startsWith("IOMMU:") || /\biova=/.test(text));
    if (isOurs) loose = catalogued(event.templates, payload, this.#head.base);
    else if (!front.bare) loose = uncatalogued(payload);
    if (front.bare && !(isOurs && loose && !isStrange(this.#events.asType(event, loose)))) {
      this.#looseType = -1;
      return TAKEN;
    }
    const type = this.#events.looseType(event, loose);
    if (type < 0) {
      this.#wrong = "more kinds of events than a file can have";
      return WRONG;
    }
    const { fields } = this.types[type]!;
    if (!columns.fits(fields.length * 2)) return NO_ROOM;
    if (this.#events.isStrange(type) && isOurs)
      this.#remarks.count("unknown-form", event.name, lines.line, `${event.name}: ${text}`);
    else for (const value of loose?.unknown ?? []) this.#remarks.count("unknown-value", value, lines.line);
    putLoose(columns, fields, loose, text, this.#strings);
    this.#looseType = type;
    return TAKEN;
  }

  /** `FUNCTION <-CALLER` of the function tracer. */
  #function(newline: number, columns: Columns): number {
    if (this.#isFull(columns) || !columns.fits(2)) return NO_ROOM;
    const lines = this.#lines;
    const { nameStart } = this.#front;
    const at = columns.used;
    columns.words[columns.used++] = this.#strings.internBytes(
      lines.bytes,
      nameStart,
      lines.textEnd(nameStart, newline),
    );
    columns.words[columns.used++] = 0;
    return this.#append(columns, this.#events.functionType(), at);
  }

  /** A stack in the form of an event: its frames follow, begin on its line, or are in it. */
  #stackEvent(payload: number, columns: Columns): number {
    const { bytes } = this.#lines;
    const newline = this.#lines.endOf(payload);
    this.#next = newline + 1;
    this.#beginStack(columns);
    if (!this.#chains.frame(bytes, payload, newline, () => false)) this.#chains.raw(bytes, payload, newline);
    return TAKEN;
  }

  #beginStack(columns: Columns): void {
    const { who, buffer } = this.#front;
    if (!this.#chains.begin(who.cpu, buffer, columns)) this.#remarks.count("chain-without-event", "", this.#lines.line);
  }

  /** Whether the line is a frame of the chain at hand. */
  #frameLine(bytes: Uint8Array, start: number): boolean {
    if (!mayBeFrame(bytes[start]!)) return false;
    const newline = this.#lines.endOf(start);
    this.#next = newline + 1;
    return this.#chains.frame(bytes, start, newline, () => this.#front.read(bytes, start) !== NOTHING);
  }

  /** `PERF_RECORD_…` of perf script --show-…-events. */
  #record(start: number, newline: number, columns: Columns): number {
    const text = decoder.decode(this.#lines.bytes.subarray(this.#front.nameStart, Math.min(newline, start + 400)));
    const lost = /^PERF_RECORD_LOST\w*\b\D*(\d+)?/.exec(text);
    if (!lost) return TAKEN;
    return this.#lostMark(columns, this.#front.who.cpu, lost[1] === undefined ? -1 : Number(lost[1]));
  }

  #lostMark(columns: Columns, cpu: number, count: number): number {
    if (this.#isFull(columns) || !columns.fits(2)) return NO_ROOM;
    const row = columns.count++;
    columns.start[row] = columns.used;
    columns.words[columns.used++] = count;
    columns.words[columns.used++] = count < 0 ? 0xffff_ffff : 0;
    columns.type[row] = 0;
    columns.cpu[row] = cpu;
    columns.pid[row] = 0;
    columns.task[row] = 0;
    columns.buffer[row] = 0;
    columns.chain[row] = 0;
    columns.timeNs[row] = this.#lastTime;
    if (count > 0) this.#lostCount = Math.min(Number.MAX_SAFE_INTEGER, this.#lostCount + count);
    else this.#lostUnknown = true;
    return TAKEN;
  }

  /** A line that is no event: a comment, a lost-event mark, the continuation of what came before, or not understood. */
  #otherLine(start: number, newline: number, columns: Columns): number {
    const lines = this.#lines;
    const line = decoder.decode(lines.bytes.subarray(start, Math.min(lines.textEnd(start, newline), start + 200)));
    const aside = asideOf(line);
    if (aside.kind === "lost") return this.#lostMark(columns, aside.cpu, aside.count);
    if (aside.kind === "chunks") {
      if (aside.chunks === 0) return TAKEN;
      const state = this.#lostMark(columns, 0, CHUNKS_LOST);
      if (state === TAKEN)
        this.#remarks.say("note", `perf lost ${aside.chunks} chunks of events, of an unknown number each`);
      return state;
    }
    if (aside.kind === "statistics") {
      this.#lostCount += aside.lost;
      this.cpus = aside.cpus ?? this.cpus;
    } else if (aside.kind === "unknown" && !this.#afterFreeText) {
      this.#remarks.count("unknown-line", "", lines.line, line);
      if (RAW_LINE.test(line))
        this.#remarks.say("note", "tracefs printed events without their fields: switch options/raw, hex and bin off");
    }
    return TAKEN;
  }

  #sayWhatIsMissing(): void {
    const missing = (bit: number): boolean => (this.#saidAll & bit) === 0;
    if (missing(SAYS_CPU))
      this.#remarks.say("not-said", "events that do not say their CPU are taken as of CPU 0 (perf script -F +cpu)");
    if (missing(SAYS_TIME))
      this.#remarks.say(
        "not-said",
        "events that do not say their time have none (perf script -F +time; funcgraph-abstime)",
      );
    if (missing(SAYS_PID))
      this.#remarks.say("not-said", "events do not say their process (perf script -F +tid; funcgraph-proc)");
    const { note } = this.timing;
    if (note !== undefined && !missing(SAYS_TIME)) this.#remarks.say("clock", note);
  }
}

const SAYS_EVERYTHING = SAYS_TASK | SAYS_PID | SAYS_CPU | SAYS_TIME;
