/**
 * Printed traces as batches: tracefs `trace` and `trace_pipe`, `trace-cmd report`, `perf script`.
 *
 * Idea: lines are read as bytes, in place. A catalogued event is matched against the template of its print format and
 * gives the fields of the binary event; any other gives its `key=value` pairs, or one string field `text`.
 * Promises: memory is one window of text, one batch, and the distinct strings (bounded). Lines keep the file's order.
 * Not for: times finer than printed (microseconds as a rule), and kernel symbols.
 */
import { Columns } from "./columns.ts";
import { LOST_FIELDS } from "./dat-trace.ts";
import { damaged, notATrace, readTwice, type TraceDamage } from "./errors.ts";
import { type EventBatch, type EventField, type EventType, LOST_EVENTS, type Trace } from "./events.ts";
import { StringTable } from "./string-table.ts";
import { LineFront } from "./text-line.ts";
import { TEMPLATES, type Template } from "./text-templates.ts";
import { ValueReader } from "./text-values.ts";

const LONGEST_LINE = 1 << 20;
/** The first event must begin within this. */
const LONGEST_HEADER = 64 * 1024;
/** Different sets of fields that one event name may have before its lines are kept as text. */
const MOST_VARIANTS = 64;
const MOST_TYPES = 60_000;
const NEWLINE = 10;
const SECOND = 1e9;

const decoder = new TextDecoder();
const LOST_LINE = /^(?:\S+:)?\s*CPU:?\s*(\d+) \[(?:LOST )?(?:(\d+) )?EVENTS(?: DROPPED)?\]/;
const PAIR = /\s*([A-Za-z_][\w.[\]-]*)=("[^"]*"|\{[^}]*\}|\S*)(?=\s|$)/y;

/** What is known of one event name. */
interface NamedEvent {
  readonly system: string;
  readonly name: string;
  readonly templates: readonly Template[];
  /** Index into `types` by template; -1: no line of that form yet. */
  readonly templateTypes: number[];
  /** Index into `types` by the fields of a raw event. */
  readonly variants: Map<string, number>;
}

/** What one line was. */
const NO_ROOM = 0;
const TAKEN = 1;
const WRONG = 2;

export class TextTrace implements Trace {
  format: Trace["format"] = "trace-cmd report";
  readonly types: EventType[] = [{ id: -1, system: "", name: LOST_EVENTS, fields: LOST_FIELDS }];
  readonly strings: readonly string[];
  readonly buffers: readonly string[];
  readonly clock: string | undefined = undefined;
  cpus: number | undefined;
  readonly system: string | undefined = undefined;
  timeBase = 0n;
  lost = 0;
  damage: TraceDamage | undefined;

  readonly #chunks: AsyncIterator<Uint8Array>;
  readonly #bestEffort: boolean;
  readonly #batchSize: number;
  readonly #strings = new StringTable();
  readonly #names = new StringTable();
  readonly #events: (NamedEvent | undefined)[] = [];
  readonly #front = new LineFront();
  readonly #values = new ValueReader();
  /** Text not read yet: [#from, #to) of the window, whose first byte is at #offset of the file. */
  #window = new Uint8Array(0);
  #from = 0;
  #to = 0;
  #offset = 0;
  #next = 0;
  #ended = false;
  #baseSeconds = 0;
  #lastTime = 0;
  /** The last event was raw: what follows and is no event may be its continuation. */
  #afterRaw = false;
  #read = false;
  #wrong = "";

  private constructor(chunks: AsyncIterator<Uint8Array>, bestEffort: boolean, batchSize: number) {
    this.#chunks = chunks;
    this.#bestEffort = bestEffort;
    this.#batchSize = batchSize;
    this.strings = this.#strings.list;
    this.buffers = this.#front.buffers.list;
    this.#strings.intern("");
  }

  /** Reads up to the first event. Errors: ERR_DMA_TRACE_FORMAT where there is none. */
  static async open(chunks: AsyncIterable<Uint8Array>, bestEffort: boolean, batchSize: number): Promise<TextTrace> {
    const trace = new TextTrace(chunks[Symbol.asyncIterator](), bestEffort, batchSize);
    try {
      await trace.#header();
    } catch (error) {
      await trace.#chunks.return?.();
      throw error;
    }
    return trace;
  }

  async #header(): Promise<void> {
    let announced = false;
    let scanned = 0;
    for (;;) {
      while (this.#lineEnd(this.#from + scanned) < 0 && !this.#ended) {
        if (this.#to - this.#from > LONGEST_HEADER) throw notATrace(this.#shown());
        await this.#fill();
      }
      const start = this.#from + scanned;
      const newline = this.#lineEnd(start);
      const end = newline < 0 ? this.#to : newline;
      if (start >= this.#to) {
        if (announced || this.#to === this.#from) {
          if (announced) return;
          throw notATrace("an empty file");
        }
        throw notATrace(this.#shown());
      }
      if (newline >= 0 && this.#front.read(this.#window, start, newline, this.#strings)) break;
      const line = decoder.decode(this.#window.subarray(start, Math.min(end, start + 200)));
      if (line.startsWith("# tracer:") || line.startsWith("#           TASK")) {
        announced = true;
        this.format = "ftrace text";
      } else if (line.startsWith("cpus=")) {
        announced = true;
        this.cpus = Number.parseInt(line.slice(5), 10) || undefined;
      } else if (!isAside(line) && !announced) throw notATrace(this.#shown());
      const entries = /^#\s*entries-in-buffer\/entries-written:\s*(\d+)\/(\d+)\s+#P:(\d+)/.exec(line);
      if (entries) {
        this.lost += Math.max(0, Number(entries[2]) - Number(entries[1]));
        this.cpus = Number(entries[3]);
      }
      scanned = end + 1 - this.#from;
      if (newline < 0 || scanned > LONGEST_HEADER) {
        if (announced) return;
        throw notATrace(this.#shown());
      }
    }
    if (this.#front.perf) this.format = "perf script";
    else if (this.#front.flags) this.format = "ftrace text";
    this.#baseSeconds = this.#front.seconds;
    this.timeBase = BigInt(this.#baseSeconds) * 1_000_000_000n;
  }

  #shown(): string {
    const head = this.#window.subarray(this.#from, Math.min(this.#to, this.#from + 24));
    const printable = head.every((byte) => byte >= 32 && byte < 127);
    return printable
      ? JSON.stringify(decoder.decode(head))
      : `bytes ${[...head.subarray(0, 12)].map((byte) => byte.toString(16).padStart(2, "0")).join(" ")}`;
  }

  #lineEnd(from: number): number {
    const at = this.#window.indexOf(NEWLINE, from);
    return at < this.#to ? at : -1;
  }

  /** Without the carriage return of a file that went through Windows. */
  #textEnd(start: number, end: number): number {
    return end > start && this.#window[end - 1] === 13 ? end - 1 : end;
  }

  /** Appends the next chunk to the window. */
  async #fill(): Promise<void> {
    const next = await this.#chunks.next();
    if (next.done) {
      this.#ended = true;
      return;
    }
    const chunk = next.value;
    const kept = this.#to - this.#from;
    if (kept + chunk.length > this.#window.length) {
      const wider = new Uint8Array((kept + chunk.length) * 2);
      wider.set(this.#window.subarray(this.#from, this.#to));
      this.#window = wider;
    } else this.#window.copyWithin(0, this.#from, this.#to);
    this.#offset += this.#from;
    this.#window.set(chunk, kept);
    this.#from = 0;
    this.#to = kept + chunk.length;
  }

  async *batches(): AsyncGenerator<EventBatch> {
    if (this.#read) throw readTwice();
    this.#read = true;
    try {
      yield* this.#batches();
    } finally {
      await this.#chunks.return?.(); // a consumer may leave early: the stream is not its own to close
    }
  }

  async *#batches(): AsyncGenerator<EventBatch> {
    const columns = new Columns(this.#batchSize);
    for (;;) {
      const state = this.#lines(columns);
      if (state === NO_ROOM) {
        yield columns;
        columns.clear();
        continue;
      }
      if (state === TAKEN && this.#to - this.#from > LONGEST_LINE)
        this.#wrong = `expected the end of a line within ${LONGEST_LINE} bytes`;
      else if (state === TAKEN && !this.#ended) {
        await this.#fill();
        continue;
      } else if (state === TAKEN) {
        if (this.#from === this.#to) break;
        this.#wrong = `expected a newline at the end of the last line (${this.#to - this.#from} bytes): it may be cut`;
      }
      const offset = this.#offset + this.#from;
      if (!this.#bestEffort) throw damaged(offset, this.#wrong);
      this.damage = { offset, message: this.#wrong };
      break;
    }
    if (columns.count > 0) yield columns;
  }

  /** Takes the whole lines of the window. NO_ROOM: the batch is full. WRONG: the line at #from makes no sense. */
  #lines(columns: Columns): number {
    const last = this.#window.lastIndexOf(NEWLINE, this.#to - 1);
    this.#values.bytes = this.#window;
    while (this.#from <= last) {
      const state = this.#line(this.#from, last, columns);
      if (state !== TAKEN) return state;
      this.#from = this.#next;
    }
    return TAKEN;
  }

  /** Takes the line at `start`, and sets #next; the last newline of the window is at `last`. */
  #line(start: number, last: number, columns: Columns): number {
    const front = this.#front;
    if (!front.read(this.#window, start, last, this.#strings)) {
      const newline = this.#window.indexOf(NEWLINE, start);
      this.#next = newline + 1;
      return this.#otherLine(start, this.#textEnd(start, newline), columns);
    }
    const index = this.#names.internBytes(this.#window, front.nameStart, front.nameEnd);
    const event = this.#events[index] ?? this.#newEvent(index);
    const row = columns.count;
    const at = columns.used;
    let type = -1;
    for (let i = 0; i < event.templates.length && type < 0; i++) {
      const template = event.templates[i]!;
      if (!columns.fits(template.fields.length * 2)) return NO_ROOM;
      if (this.#values.match(template, front.payload, columns, this.#strings)) {
        type = event.templateTypes[i]!;
        if (type < 0) type = event.templateTypes[i] = this.#newType(event, template.fields);
      }
    }
    this.#afterRaw = type < 0;
    if (type >= 0) this.#next = this.#values.at + 1;
    else {
      const newline = this.#window.indexOf(NEWLINE, front.payload);
      this.#next = newline + 1;
      const state = this.#raw(event, front.payload, this.#textEnd(front.payload, newline), columns);
      if (state !== TAKEN) return state;
      type = this.#rawType;
    }
    columns.start[row] = at;
    columns.type[row] = type;
    columns.cpu[row] = front.cpu;
    columns.pid[row] = front.pid;
    columns.task[row] = front.task;
    columns.buffer[row] = front.buffer;
    this.#lastTime = (front.seconds - this.#baseSeconds) * SECOND + front.nanoseconds;
    columns.timeNs[row] = this.#lastTime;
    columns.count = row + 1;
    return TAKEN;
  }

  #newEvent(index: number): NamedEvent {
    const full = this.#names.list[index] || "function";
    const colon = full.indexOf(":");
    const name = full.slice(colon + 1);
    const templates = Object.hasOwn(TEMPLATES, name) ? TEMPLATES[name]! : [];
    const event: NamedEvent = {
      system: colon < 0 ? "" : full.slice(0, colon),
      name,
      templates,
      templateTypes: templates.map(() => -1),
      variants: new Map(),
    };
    this.#events[index] = event;
    return event;
  }

  #newType(event: NamedEvent, fields: readonly EventField[]): number {
    const id = this.types.length;
    return this.types.push({ id, system: event.system, name: event.name, fields }) - 1;
  }

  #rawType = 0;

  /** An event outside the catalogue, or in a form that no template has. */
  #raw(event: NamedEvent, start: number, end: number, columns: Columns): number {
    const payload = decoder.decode(this.#window.subarray(start, end));
    const pairs = pairsOf(payload);
    if (!pairs && event.templates.length > 0 && (event.name.includes("_") || payload.startsWith("IOMMU:"))) {
      this.#wrong = `expected the fields of ${event.name}, found ${JSON.stringify(payload.slice(0, 120))}`;
      return WRONG;
    }
    let fields = pairs?.map(({ name, value }): EventField => ({ name, kind: kindOf(value) }));
    const signature = fields?.map(({ name, kind }) => `${name}=${kind}`).join(" ") ?? "";
    let type = event.variants.get(signature);
    if (type === undefined) {
      if (event.variants.size >= MOST_VARIANTS) fields = undefined;
      type = fields ? undefined : event.variants.get("");
      if (type === undefined) {
        if (this.types.length >= MOST_TYPES) {
          this.#wrong = `expected at most ${MOST_TYPES} kinds of events`;
          return WRONG;
        }
        type = this.#newType(event, fields ?? [{ name: "text", kind: "string" }]);
        event.variants.set(fields ? signature : "", type);
      }
    }
    const kinds = this.types[type]!.fields;
    if (!columns.fits(kinds.length * 2)) return NO_ROOM;
    for (let i = 0; i < kinds.length; i++) {
      const value = fields ? pairs![i]!.value : payload;
      let bits = 0n;
      if (kinds[i]!.kind === "string") bits = BigInt(this.#strings.intern(value.replace(/^"(.*)"$/, "$1")));
      else bits = BigInt.asUintN(64, value.startsWith("-") ? -BigInt(value.slice(1)) : BigInt(value));
      columns.words[columns.used++] = Number(bits & 0xffff_ffffn);
      columns.words[columns.used++] = Number(bits >> 32n);
    }
    this.#rawType = type;
    return TAKEN;
  }

  /** A line that is no event: a comment, a lost-event mark, the continuation of what came before, or damage. */
  #otherLine(start: number, end: number, columns: Columns): number {
    const line = decoder.decode(this.#window.subarray(start, Math.min(end, start + 200)));
    const lost = LOST_LINE.exec(line);
    if (lost) {
      if (!columns.fits(2)) return NO_ROOM;
      const count = lost[2] === undefined ? -1 : Math.min(Number(lost[2]), 0x7fff_ffff);
      const row = columns.count++;
      columns.start[row] = columns.used;
      columns.words[columns.used++] = count;
      columns.words[columns.used++] = count < 0 ? 0xffff_ffff : 0;
      columns.type[row] = 0;
      columns.cpu[row] = Number(lost[1]) & 0xffff;
      columns.pid[row] = 0;
      columns.task[row] = 0;
      columns.buffer[row] = 0;
      columns.timeNs[row] = this.#lastTime;
      if (count > 0) this.lost += count;
      return TAKEN;
    }
    if (isAside(line) || (this.#afterRaw && isPrintable(line))) return TAKEN;
    this.#wrong = `expected TASK-PID [CPU] TIME: EVENT: …, found ${JSON.stringify(line.slice(0, 80))}`;
    return WRONG;
  }
}

/** Comments, headers, empty lines, and the lines of a stack. */
const isAside = (line: string): boolean =>
  /^(?:#|cpus=\d|version = |\s*$|\s*=> |\s+[0-9a-f]{8,16} \S|CPU \d+ is empty)/.test(line);

const isPrintable = (line: string): boolean =>
  [...line].every((character) => character >= " " && character !== "\u007f" && character !== "\ufffd");

/** The payload as `key=value` pairs, if it is nothing else. */
function pairsOf(payload: string): { name: string; value: string }[] | undefined {
  const text = payload.replace(/^\[FAILED TO PARSE\] ?/, "").replace(/^\([^)]*\) ?/, "");
  const pairs: { name: string; value: string }[] = [];
  for (let at = 0; at < text.trimEnd().length; at = PAIR.lastIndex) {
    PAIR.lastIndex = at;
    const match = PAIR.exec(text);
    if (!match) return undefined;
    pairs.push({ name: match[1]!, value: match[2]! });
  }
  return pairs.length > 0 ? pairs : undefined;
}

const kindOf = (value: string): EventField["kind"] =>
  /^-?\d{1,18}$/.test(value) ? "signed" : /^0x[0-9a-fA-F]{1,16}$/.test(value) ? "unsigned" : "string";
