/**
 * The front of a line of text: who, where, when, and the name of the event; whatever tool printed it, under whatever option.
 *
 * Idea: a line is recognised by what is in it, not by columns. One of four anchors is found (the CPU in brackets, a stamp
 * and its colon, `SYSTEM:EVENT:`, or a function graph's `CPU)`), the rest is read from there to both sides, and a line
 * that does not fit to its end is no event. A line that begins like the one before is not taken apart again.
 * Promises: linear in the line; the anchor is looked for within its first {@link LONGEST_FRONT} bytes.
 * Specified by: `TASK-PID (TGID) [CPU] FLAGS STAMP: EVENT: …` of tracefs; the same of trace-cmd report without flags, with
 * `(+DELTA)` behind the stamp, with an instance's name in front, and as `TASK-PID CPUFLAGS STAMP:` of the latency format;
 * `TASK PID/TID [CPU] STAMP: PERIOD SYSTEM:EVENT: …` of perf script, any part but the event left out.
 */
import { StringTable } from "../string-table.ts";
import { GraphFront } from "./graph-front.ts";
import { Stamp } from "./stamp.ts";
import { isDigit, SAYS_CPU, SAYS_TIME, Who } from "./who.ts";

const NEWLINE = 10;
const SPACE = 32;
const OPEN_PAREN = 40;
const CLOSE_PAREN = 41;
const PLUS = 43;
const MINUS = 45;
const DOT = 46;
const ZERO = 48;
const COLON = 58;
const LESS = 60;
const OPEN_BRACKET = 91;
const CLOSE_BRACKET = 93;

const LONGEST_FRONT = 512;
/** Longer than nearly any front: then its bytes are not remembered. */
const LONGEST_KNOWN = 128;
const LAST_BUFFER = 65535;
/** A stamp in brackets, of the verbose latency format, has eight or more. */
const MOST_CPU_DIGITS = 5;

/** What a line is. */
export const NOTHING = 0;
/** An event with its name. */
export const EVENT = 1;
/** A line of the function tracer. */
export const FUNCTION = 2;
/** The head of a call chain: of the kernel, or of user space. */
export const STACK = 3;
export const USER_STACK = 4;
/** What perf says of itself: `PERF_RECORD_…`. */
export const RECORD = 5;
/** Of a function graph, and no event. */
export const GRAPH = 6;

const encoder = new TextEncoder();
const PERF_RECORD = encoder.encode("PERF_RECORD_");
const STACK_HEAD = encoder.encode("<stack trace");
/** What the payload of an iommu event begins with: a line that has it in place of the name does not say its event. */
const NO_NAME = encoder.encode("IOMMU");
const USER_STACK_HEAD = encoder.encode("<user stack trace");

const beginsWith = (bytes: Uint8Array, at: number, word: Uint8Array): boolean => {
  for (let i = 0; i < word.length; i++) if (bytes[at + i] !== word[i]) return false;
  return true;
};

export class Front {
  readonly who: Who = new Who();
  readonly stamp: Stamp = new Stamp();
  readonly graph: GraphFront;
  /** What the line says, as a sum of SAYS_*. */
  says = 0;
  /** Index into `buffers`. */
  buffer = 0;
  nameStart = 0;
  nameEnd = 0;
  payload = 0;
  /** The line has flags of interrupts and preemption. */
  flags = false;
  /** The line names nothing but the event: it must be known to be believed. */
  bare = false;
  /** The event is a comment of a function graph, and ends in its closing mark. */
  isComment = false;

  /** Names of the instances met so far; the main buffer is "". */
  readonly buffers: StringTable = new StringTable();
  readonly #strings: StringTable;
  readonly #known = new Uint8Array(LONGEST_KNOWN);
  #knownLength = 0;
  #knownHasTime = true;

  constructor(strings: StringTable) {
    this.#strings = strings;
    this.graph = new GraphFront(strings);
    this.buffers.intern("");
  }

  /** Reads the front of the line at `start`, which ends in a newline. */
  read(bytes: Uint8Array, start: number): number {
    const known = this.#known;
    const length = this.#knownLength;
    let same = length > 0;
    for (let i = 0; same && i < length; i++) same = bytes[start + i] === known[i];
    if (same) {
      const kind = this.#knownHasTime ? this.#when(bytes, start + length) : this.#name(bytes, start + length, true);
      if (kind !== NOTHING) return kind;
    }
    this.#knownLength = 0;
    return this.#find(bytes, start, bytes.indexOf(NEWLINE, start));
  }

  #find(bytes: Uint8Array, start: number, newline: number): number {
    this.says = 0;
    this.flags = false;
    this.bare = false;
    this.isComment = false;
    const from = this.#instance(bytes, start, newline);
    const limit = Math.min(newline, from + LONGEST_FRONT);
    return (
      this.#byBracket(bytes, start, from, limit) ||
      this.#byGraph(bytes, start, newline) ||
      this.#byStamp(bytes, start, from, limit) ||
      this.#bySystem(bytes, start, from, limit) ||
      this.#byName(bytes, from, newline)
    );
  }

  /**
   * Steps over `NAME:` at the beginning, which trace-cmd report puts there for an instance, or for one of several files. A
   * task never stands there: its column is wider than any task's name.
   */
  #instance(bytes: Uint8Array, start: number, newline: number): number {
    this.buffer = 0;
    let first = start;
    while (first < newline && bytes[first] === SPACE) first++;
    let at = first;
    while (at < newline && bytes[at]! > SPACE) at++;
    // Behind it at least two spaces, as the task's own column begins: not the event of a line without a front.
    if (at === first || bytes[at - 1] !== COLON || bytes[at] !== SPACE || bytes[at + 1] !== SPACE) return start;
    if (isDigit(bytes[first]) && this.stamp.read(bytes, first) === at) return start;
    for (let i = first; i < at - 1; i++) if (bytes[i] === COLON) return start; // SYSTEM:EVENT:
    const index = this.buffers.internBytes(bytes, first, at - 1);
    this.buffer = index > LAST_BUFFER ? 0 : index;
    return at;
  }

  /** `… [CPU] …` */
  #byBracket(bytes: Uint8Array, start: number, from: number, limit: number): number {
    for (let open = from; open < limit; open++) {
      if (bytes[open] !== OPEN_BRACKET || !isDigit(bytes[open + 1])) continue;
      if (open > from && bytes[open - 1] !== SPACE) continue;
      let close = open + 1;
      let cpu = 0;
      while (close < limit && isDigit(bytes[close])) cpu = cpu * 10 + bytes[close++]! - ZERO;
      if (bytes[close] !== CLOSE_BRACKET || bytes[close + 1] !== SPACE || close - open > MOST_CPU_DIGITS + 1) continue;
      if (cpu > 0xffff) continue;
      this.who.read(bytes, from, open, this.#strings);
      this.who.cpu = cpu;
      this.who.says |= SAYS_CPU;
      const kind = this.#when(bytes, close + 1) || this.#systemName(bytes, close + 1);
      if (kind !== NOTHING) return this.#remember(bytes, start, close + 1, kind);
    }
    return NOTHING;
  }

  #byGraph(bytes: Uint8Array, start: number, newline: number): number {
    const kind = this.graph.read(bytes, start, newline);
    if (kind === NOTHING) return NOTHING;
    const { graph, who, stamp } = this;
    who.task = graph.task;
    who.pid = graph.pid;
    who.cpu = graph.cpu;
    this.says = graph.says;
    stamp.seconds = graph.stamp.seconds;
    stamp.nanoseconds = graph.stamp.nanoseconds;
    stamp.isCount = false;
    if (kind === GRAPH) return GRAPH;
    this.isComment = true;
    return this.#name(bytes, graph.commentStart, false);
  }

  /** `… STAMP: …`, without a CPU or with it and the flags in one word. */
  #byStamp(bytes: Uint8Array, start: number, from: number, limit: number): number {
    const { who, stamp } = this;
    for (let at = from; at < limit; at++) {
      if (!isDigit(bytes[at]) || (at > from && bytes[at - 1] !== SPACE)) continue;
      if (stamp.read(bytes, at) < 0) continue;
      const verbose = this.#verbose(bytes, from, at);
      const isLatency = !verbose && who.readLatency(bytes, from, at, this.#strings);
      if (!verbose && !isLatency) who.read(bytes, from, at, this.#strings);
      if (stamp.isCount && !verbose && !isLatency) continue; // "chapter 3: the end": it could be anything
      const kind = this.#when(bytes, at);
      if (kind === NOTHING) continue;
      this.flags = isLatency || verbose;
      return this.#remember(bytes, start, isLatency ? who.cpuEnd : at, kind);
    }
    return NOTHING;
  }

  /** The verbose latency format: `TASK PID CPU FLAGS PREEMPT INDEX [STAMP] 0.012ms (+0.001ms):`. */
  #verbose(bytes: Uint8Array, from: number, to: number): boolean {
    if (bytes[to - 2] !== CLOSE_BRACKET) return false;
    const words = decoder.decode(bytes.subarray(from, to)).trim().split(/ +/);
    const [pid, cpu] = [Number(words.at(-6)), Number(words.at(-5))];
    if (!/^\[[0-9a-f]{8,16}\]$/.test(words.at(-1)!) || !(pid >= 0) || !(cpu >= 0 && cpu <= 0xffff)) return false;
    this.who.says = 7;
    this.who.pid = pid;
    this.who.cpu = cpu;
    this.who.task = this.#strings.intern(words.slice(0, -6).join(" "));
    return true;
  }

  /** `… SYSTEM:EVENT: …`, as perf script prints it without a stamp. */
  #bySystem(bytes: Uint8Array, start: number, from: number, limit: number): number {
    for (let at = from; at < limit; at++) {
      if (bytes[at]! <= SPACE || (at > from && bytes[at - 1] !== SPACE)) continue;
      let end = at;
      let colons = 0;
      while (end < limit && bytes[end]! > SPACE) if (bytes[end++] === COLON) colons++;
      if (colons === 2 && bytes[end - 1] === COLON && isWordAt(bytes, at)) {
        this.who.read(bytes, from, at, this.#strings);
        const kind = this.#systemName(bytes, at);
        if (kind !== NOTHING) return this.#remember(bytes, start, at, kind);
      }
      at = end;
    }
    return NOTHING;
  }

  /** `SYSTEM:EVENT: …`: without a stamp a name must say more than a word and a colon, which prose has too. */
  #systemName(bytes: Uint8Array, from: number): number {
    if (this.#name(bytes, from, true) !== EVENT) return NOTHING;
    let colons = 0;
    for (let at = this.nameStart; at < this.nameEnd; at++)
      if (bytes[at] === COLON) colons++;
      else if (!isWordAt(bytes, at) && !isDigit(bytes[at]) && bytes[at] !== MINUS && bytes[at] !== DOT) return NOTHING;
    return colons === 1 ? EVENT : NOTHING;
  }

  /** The event alone, as tracefs prints it without context. */
  #byName(bytes: Uint8Array, from: number, newline: number): number {
    let at = from;
    while (at < newline && bytes[at] === SPACE) at++;
    if (!isWordAt(bytes, at)) return NOTHING;
    this.who.read(bytes, from, from, this.#strings);
    this.bare = true;
    return this.#name(bytes, at, true);
  }

  #remember(bytes: Uint8Array, start: number, end: number, kind: number): number {
    const length = end - start;
    if (length > 0 && length <= LONGEST_KNOWN) {
      for (let i = 0; i < length; i++) this.#known[i] = bytes[start + i]!;
      this.#knownLength = length;
      this.#knownHasTime = (this.says & SAYS_TIME) !== 0;
    }
    return kind;
  }

  /** `FLAGS STAMP: (+DELTA) PERIOD EVENT: `, all but stamp and event may be missing. */
  #when(bytes: Uint8Array, from: number): number {
    let at = from;
    while (bytes[at] === SPACE) at++;
    this.flags = !isDigit(bytes[at]);
    if (this.flags) {
      while (bytes[at]! > SPACE) at++;
      while (bytes[at] === SPACE) at++;
    }
    at = this.stamp.read(bytes, at);
    if (at < 0 || bytes[at] !== SPACE) return NOTHING;
    while (bytes[at] === SPACE) at++;
    if (bytes[at] === OPEN_PAREN && bytes[at + 1] === PLUS) {
      while (bytes[at] !== CLOSE_PAREN && bytes[at]! > SPACE) at++;
      if (bytes[at] !== CLOSE_PAREN) return NOTHING;
      at++;
      while (bytes[at] === SPACE) at++;
    }
    if (isDigit(bytes[at])) {
      const period = at;
      while (isDigit(bytes[at])) at++;
      if (bytes[at] === SPACE) while (bytes[at] === SPACE) at++;
      else at = period;
    }
    const kind = this.#name(bytes, at, true);
    if (kind !== NOTHING) this.says |= SAYS_TIME;
    return kind;
  }

  /** `EVENT: PAYLOAD`, or what stands there instead. */
  #name(bytes: Uint8Array, from: number, takesWho: boolean): number {
    let at = from;
    while (bytes[at] === SPACE) at++;
    if (takesWho) this.says = this.who.says;
    this.nameStart = at;
    while (bytes[at]! > SPACE && (bytes[at] !== COLON || bytes[at + 1]! > SPACE)) at++;
    if (at === this.nameStart) return NOTHING;
    this.nameEnd = at;
    if (bytes[at] === COLON) {
      // An address stands there for a function without a name; a number, or the payload of iommu events, is no name.
      if (!isWordAt(bytes, this.nameStart) && bytes[this.nameStart + 1] !== 120) return NOTHING;
      if (at - this.nameStart === NO_NAME.length && beginsWith(bytes, this.nameStart, NO_NAME)) return NOTHING;
      at++;
      while (bytes[at] === SPACE) at++;
      this.payload = at;
      return beginsWith(bytes, this.nameStart, PERF_RECORD) ? RECORD : EVENT;
    }
    this.payload = this.nameStart;
    if (bytes[from] === LESS || bytes[this.nameStart] === LESS) {
      if (beginsWith(bytes, this.nameStart, STACK_HEAD)) return STACK;
      if (beginsWith(bytes, this.nameStart, USER_STACK_HEAD)) return USER_STACK;
    }
    if (beginsWith(bytes, this.nameStart, PERF_RECORD)) return RECORD;
    // `FUNCTION <-CALLER`, with arguments in between on newer kernels
    for (; bytes[at] !== NEWLINE && at < bytes.length; at++)
      if (bytes[at] === LESS && bytes[at + 1] === MINUS && bytes[at - 1] === SPACE) return FUNCTION;
    return NOTHING;
  }
}

const decoder = new TextDecoder();

/** A letter or an underscore: what a name of an event begins with. */
function isWordAt(bytes: Uint8Array, at: number): boolean {
  const byte = bytes[at]! | 32;
  return (byte >= 97 && byte <= 122) || bytes[at] === 95;
}
