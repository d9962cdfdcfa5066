/**
 * The front of a line of the function graph tracer, which prints events as comments between the calls.
 *
 * Idea: what stands left of the call is in parts that `|` ends, in a fixed order, and each is known by its look; the task
 * of a CPU is remembered from where it was last named.
 * Specified by: `STAMP |  CPU) TASK-PID | FLAGS | DURATION | /* EVENT: … *\/`, every part an option (`funcgraph-abstime`,
 * `funcgraph-cpu`, `funcgraph-proc`, `latency-format`, `funcgraph-duration`), and ` CPU)  TASK-PID  =>  TASK-PID ` where
 * another task comes.
 */
import type { StringTable } from "../string-table.ts";
import { Stamp } from "./stamp.ts";
import { isDigit, SAYS_CPU, SAYS_PID, SAYS_TASK, SAYS_TIME } from "./who.ts";

const SPACE = 32;
const CLOSE_PAREN = 41;
const STAR = 42;
const SLASH = 47;
const COLON = 58;
const BAR = 124;
/** A front of this tracer is no longer. */
const LONGEST_PARTS = 160;

const NOTHING = 0;
const EVENT = 1;
const GRAPH = 6;
const decoder = new TextDecoder();

export class GraphFront {
  task = 0;
  pid = -1;
  cpu = 0;
  says = 0;
  readonly stamp: Stamp = new Stamp();
  /** Where the event begins, behind the start of the comment. */
  commentStart = 0;
  readonly #strings: StringTable;
  /** The task that runs on a CPU. */
  readonly #running = new Map<number, { readonly task: number; readonly pid: number }>();

  constructor(strings: StringTable) {
    this.#strings = strings;
  }

  read(bytes: Uint8Array, start: number, newline: number): number {
    let at = start;
    while (at < newline && bytes[at] === SPACE) at++;
    this.says = 0;
    this.cpu = 0;
    this.pid = -1;
    this.task = 0;
    const limit = Math.min(newline, at + LONGEST_PARTS);
    const stamped = this.#stampAt(bytes, at, limit);
    if (stamped > 0) at = stamped;
    const cpuEnd = this.#cpuAt(bytes, at, limit);
    if (cpuEnd > 0) at = cpuEnd;
    let bars = stamped > 0 ? 1 : 0;
    for (let part = at; part < limit; ) {
      const bar = bytes.indexOf(BAR, part);
      if (bar < 0 || bar >= limit) break;
      bars++;
      this.#process(bytes, part, bar);
      at = bar + 1;
      part = at;
      let next = at;
      while (next < limit && bytes[next] === SPACE) next++;
      if (bytes[next] === SLASH && bytes[next + 1] === STAR) break; // an event may hold bars of its own
    }
    if (cpuEnd < 0 && bars === 0) return NOTHING;
    if (bars === 0) return this.#switch(bytes, at, newline) ? GRAPH : NOTHING;
    while (at < newline && bytes[at] === SPACE) at++;
    if (cpuEnd > 0) this.says |= SAYS_CPU;
    const running = this.#running.get(this.cpu);
    if (running && (this.says & SAYS_PID) === 0) {
      this.task = running.task;
      this.pid = running.pid;
      this.says |= SAYS_TASK | SAYS_PID;
    }
    if (bytes[at] !== SLASH || bytes[at + 1] !== STAR) return cpuEnd > 0 || stamped > 0 ? GRAPH : NOTHING;
    this.commentStart = at + 2;
    return EVENT;
  }

  /** `  12.345678 |`: the offset behind it, or -1. */
  #stampAt(bytes: Uint8Array, from: number, limit: number): number {
    let bar = from;
    while (bar < limit && (isDigit(bytes[bar]) || bytes[bar] === 46)) bar++;
    const end = bar;
    while (bar < limit && bytes[bar] === SPACE) bar++;
    if (end === from || bytes[bar] !== BAR) return -1;
    const text = Uint8Array.from([...bytes.subarray(from, end), COLON]);
    if (this.stamp.read(text, 0) < 0 || this.stamp.isCount) return -1;
    this.says |= SAYS_TIME;
    return bar + 1;
  }

  /** ` 1)`: the offset behind it, or -1. */
  #cpuAt(bytes: Uint8Array, from: number, limit: number): number {
    let at = from;
    while (at < limit && bytes[at] === SPACE) at++;
    const first = at;
    let cpu = 0;
    while (at < limit && isDigit(bytes[at])) cpu = cpu * 10 + bytes[at++]! - 48;
    if (at === first || bytes[at] !== CLOSE_PAREN || cpu > 0xffff) return -1;
    this.cpu = cpu;
    return at + 1;
  }

  /** A part that names a task and its process. */
  #process(bytes: Uint8Array, from: number, bar: number): void {
    const match = /^(?! *[\d.]+ [mun]?s *$) *(.+)-(\d{1,10}) *$/.exec(decoder.decode(bytes.subarray(from, bar)));
    if (match) this.#runs(match[1]!, Number(match[2]));
  }

  #runs(task: string, pid: number): void {
    this.task = this.#strings.intern(task);
    this.pid = pid;
    this.says |= SAYS_TASK | SAYS_PID;
    this.#running.set(this.cpu, { task: this.task, pid });
  }

  /** ` 1)   fio-142   =>   sh-7  `. */
  #switch(bytes: Uint8Array, from: number, newline: number): boolean {
    const text = decoder.decode(bytes.subarray(from, Math.min(newline, from + LONGEST_PARTS)));
    const next = text.indexOf("=>");
    if (next < 0) return false;
    const match = /^ *(\S.*)-(\d{1,10}) *$/.exec(text.slice(next + 2));
    if (match) this.#runs(match[1]!, Number(match[2]));
    return match !== null;
  }
}
