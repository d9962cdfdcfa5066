/**
 * The front of a text line: task, process, CPU, time and the name of the event, in every form that is read.
 *
 * Idea: the CPU column `[001]` is found first, and everything else from there, because a task name may hold anything: a
 * hyphen, a slash, a colon, a space. A line that begins like the one before it is not taken apart again.
 * Specified by: `TASK-PID (TGID) [CPU] FLAGS SECONDS: EVENT: …` of tracefs, the same without flags of trace-cmd report,
 * and `TASK PID/TID [CPU] SECONDS: SYSTEM:EVENT: …` of perf script.
 */
import { StringTable } from "./string-table.ts";

const NEWLINE = 10;
const SPACE = 32;
const OPEN_PAREN = 40;
const CLOSE_PAREN = 41;
const MINUS = 45;
const DOT = 46;
const SLASH = 47;
const ZERO = 48;
const COLON = 58;
const OPEN_BRACKET = 91;
const CLOSE_BRACKET = 93;
/** Longer than any front of a line: then its bytes are not remembered. */
const LONGEST_FRONT = 128;
const NANO_STEP = [1e9, 1e8, 1e7, 1e6, 1e5, 1e4, 1e3, 100, 10, 1];
/** Digits of seconds that stay exact. */
const MOST_SECONDS_DIGITS = 15;
const MOST_PID_DIGITS = 10;
const LAST_BUFFER = 255;

const isDigit = (byte: number | undefined): boolean => byte !== undefined && byte >= ZERO && byte <= 57;

export class LineFront {
  task = 0;
  pid = 0;
  cpu = 0;
  /** Index into `buffers`. */
  buffer = 0;
  seconds = 0;
  /** Nanoseconds within the second; without a point in the time, the whole time. */
  nanoseconds = 0;
  nameStart = 0;
  nameEnd = 0;
  payload = 0;
  /** Whether the line has the flags column of tracefs. */
  flags = false;
  /** Whether the process id stands apart from the task, as perf prints it. */
  perf = false;

  /** Names of the instances met so far; the main buffer is "". */
  readonly buffers: StringTable = new StringTable();
  readonly #known = new Uint8Array(LONGEST_FRONT);
  #knownLength = 0;

  constructor() {
    this.buffers.intern("");
  }

  /** Reads the front of the line at `start`, which ends in a newline before `end`; false where it is none. */
  read(bytes: Uint8Array, start: number, end: number, strings: StringTable): boolean {
    const known = this.#known;
    const length = this.#knownLength;
    let at = start;
    let same = length > 0;
    for (let i = 0; same && i < length; i++) same = bytes[start + i] === known[i];
    if (same) at = start + length;
    else {
      at = this.#taskAndCpu(bytes, start, end, strings);
      if (at < 0) return false;
      this.#knownLength = at - start <= LONGEST_FRONT ? at - start : 0;
      for (let i = 0; i < this.#knownLength; i++) known[i] = bytes[start + i]!;
    }
    return this.#timeAndName(bytes, at);
  }

  /** The offset behind `[CPU]`, or -1. */
  #taskAndCpu(bytes: Uint8Array, start: number, end: number, strings: StringTable): number {
    let from = this.#instance(bytes, start, end);
    while (from < end && bytes[from] === SPACE) from++;
    for (let open = from + 1; open < end && bytes[open] !== NEWLINE; open++) {
      if (bytes[open] !== OPEN_BRACKET || bytes[open - 1] !== SPACE || !isDigit(bytes[open + 1])) continue;
      let close = open + 1;
      let cpu = 0;
      while (close < end && isDigit(bytes[close])) cpu = cpu * 10 + bytes[close++]! - ZERO;
      if (bytes[close] !== CLOSE_BRACKET || bytes[close + 1] !== SPACE || close + 1 >= end || cpu > 0xffff) continue;
      if (!this.#taskBefore(bytes, from, open, strings)) continue;
      this.cpu = cpu;
      return close + 1;
    }
    return -1;
  }

  /**
   * Steps over `NAME:` at the very beginning, which trace-cmd report puts there for an instance. A task never stands
   * there: its column is wider than any task's name.
   */
  #instance(bytes: Uint8Array, start: number, end: number): number {
    this.buffer = 0;
    if (bytes[start] === SPACE) return start;
    let at = start;
    while (at < end && bytes[at]! > SPACE) at++;
    if (at === start || bytes[at - 1] !== COLON || at >= end) return start;
    const index = this.buffers.internBytes(bytes, start, at - 1);
    this.buffer = index > LAST_BUFFER ? 0 : index;
    return at;
  }

  #taskBefore(bytes: Uint8Array, from: number, open: number, strings: StringTable): boolean {
    let last = open - 1;
    while (last > from && bytes[last] === SPACE) last--;
    if (bytes[last] === CLOSE_PAREN) {
      while (last > from && bytes[last] !== OPEN_PAREN) last--;
      last--;
      while (last > from && bytes[last] === SPACE) last--;
    }
    let first = last;
    while (first >= from && isDigit(bytes[first])) first--;
    if (first === last || last - first > MOST_PID_DIGITS || first < from) return false;
    let pid = 0;
    for (let i = first + 1; i <= last; i++) pid = pid * 10 + bytes[i]! - ZERO;
    let taskEnd = first;
    this.perf = bytes[first] !== MINUS;
    if (this.perf) {
      if (bytes[first] === SLASH) {
        first--; // PID/TID: the thread is what the other forms print
        while (first > from && isDigit(bytes[first])) first--;
      }
      if (bytes[first] !== SPACE) return false;
      taskEnd = first;
      while (taskEnd > from && bytes[taskEnd - 1] === SPACE) taskEnd--;
    }
    this.pid = pid | 0;
    this.task = strings.internBytes(bytes, from, taskEnd);
    return true;
  }

  #timeAndName(bytes: Uint8Array, from: number): boolean {
    let at = from;
    while (bytes[at] === SPACE) at++;
    this.flags = !isDigit(bytes[at]);
    if (this.flags) {
      while (bytes[at]! > SPACE) at++;
      while (bytes[at] === SPACE) at++;
    }
    const first = at;
    let seconds = 0;
    for (; ; at++) {
      const digit = bytes[at]! - ZERO;
      if (digit < 0 || digit > 9) break;
      seconds = seconds * 10 + digit;
    }
    if (at === first || at - first > MOST_SECONDS_DIGITS) return false;
    this.seconds = seconds;
    this.nanoseconds = 0;
    if (bytes[at] === DOT) {
      const point = ++at;
      let fraction = 0;
      for (; ; at++) {
        const digit = bytes[at]! - ZERO;
        if (digit < 0 || digit > 9) break;
        fraction = fraction * 10 + digit;
      }
      if (at === point || at - point > 9) return false;
      this.nanoseconds = fraction * NANO_STEP[at - point]!;
    } else {
      this.nanoseconds = seconds; // a clock that counts, not seconds
      this.seconds = 0;
    }
    if (bytes[at] !== COLON) return false;
    at++;
    while (bytes[at] === SPACE) at++;
    if (this.perf) {
      const period = at;
      while (isDigit(bytes[at])) at++;
      if (at > period && bytes[at] === SPACE) while (bytes[at] === SPACE) at++;
      else at = period;
    }
    this.nameStart = at;
    while (bytes[at]! > SPACE && (bytes[at] !== COLON || bytes[at + 1]! > SPACE)) at++;
    if (at === this.nameStart) return false;
    this.nameEnd = at;
    if (bytes[at] !== COLON) {
      this.nameEnd = this.nameStart; // no name: the line of a function tracer
      this.payload = this.nameStart;
      return true;
    }
    at++;
    while (bytes[at] === SPACE) at++;
    this.payload = at;
    return true;
  }
}
