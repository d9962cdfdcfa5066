/**
 * Who a line of text is about: task, process and CPU, as the tools print them left of the time.
 *
 * Idea: a task's name may hold anything (spaces, hyphens, colons, brackets), so it is what is left when the numbers were
 * read from the right. Specified by: `TASK-PID (TGID)` of tracefs and trace-cmd, `TASK PID/TID` of perf script with any of
 * them left out, `TASK-PID CPUflags` of the latency format.
 */
import type { StringTable } from "../string-table.ts";

const SPACE = 32;
const OPEN_PAREN = 40;
const CLOSE_PAREN = 41;
const MINUS = 45;
const SLASH = 47;
const ZERO = 48;
const MOST_PID_DIGITS = 10;
/** `(-------)` or the number of a group of threads. */
const LONGEST_TGID = 16;
/** Characters of the flags: irqs off, need resched, context, depth of preemption and of migration; `-0x1f` raw. */
const FEWEST_FLAGS = 4;
const MOST_FLAGS = 10;

export const isDigit = (byte: number | undefined): boolean => byte !== undefined && byte >= ZERO && byte <= 57;

/** What a line can leave out. */
export const SAYS_TASK = 1;
export const SAYS_PID = 2;
export const SAYS_CPU = 4;
export const SAYS_TIME = 8;

export class Who {
  /** Index into the strings; that of "" where the line names no task. */
  task = 0;
  /** -1: the line does not say. */
  pid = -1;
  /** 0 where the line does not say. */
  cpu = 0;
  /** Which of them the line says, as a sum of SAYS_*. */
  says = 0;
  /** The process id stands behind a hyphen, as tracefs and trace-cmd print it. */
  hyphen = false;

  /** Reads [start, to), which may be empty. */
  read(bytes: Uint8Array, start: number, to: number, strings: StringTable): void {
    let from = start;
    while (from < to && bytes[from] === SPACE) from++;
    this.pid = -1;
    this.cpu = 0;
    this.says = 0;
    this.hyphen = false;
    let last = to - 1;
    while (last >= from && bytes[last] === SPACE) last--;
    if (bytes[last] === CLOSE_PAREN && last > from) {
      const least = Math.max(from, last - LONGEST_TGID);
      let open = last;
      while (open > least && bytes[open] !== OPEN_PAREN) open--;
      if (bytes[open] === OPEN_PAREN) {
        last = open - 1;
        while (last >= from && bytes[last] === SPACE) last--;
      }
    }
    let first = last;
    while (first >= from && isDigit(bytes[first])) first--;
    let taskEnd = last + 1;
    if (first < last && last - first <= MOST_PID_DIGITS) {
      const before = bytes[first];
      if (first < from || before === SPACE) taskEnd = this.#number(bytes, first, last);
      else if (before === MINUS) {
        const isNegative = first === from || bytes[first - 1] === SPACE; // perf's -1: no process
        taskEnd = this.#number(bytes, first, last);
        this.hyphen = !isNegative;
        if (isNegative) this.pid = -1;
      } else if (before === SLASH) {
        let group = first - 1; // PID/TID: the thread is what the other forms print
        while (group >= from && (isDigit(bytes[group]) || bytes[group] === MINUS)) group--;
        if (group < first - 1 && (group < from || bytes[group] === SPACE)) {
          this.#number(bytes, first, last);
          taskEnd = group;
        }
      }
    }
    while (taskEnd > from && bytes[taskEnd - 1] === SPACE) taskEnd--;
    if (taskEnd > from) this.says |= SAYS_TASK;
    this.task = strings.internBytes(bytes, from, Math.max(from, taskEnd));
  }

  /** The same where the CPU and its flags stand last, without brackets: `fio-7   3d.h1.`. */
  readLatency(bytes: Uint8Array, from: number, to: number, strings: StringTable): boolean {
    let last = to - 1;
    while (last >= from && bytes[last] === SPACE) last--;
    let first = last;
    while (first >= from && bytes[first]! > SPACE) first--;
    let at = first + 1;
    let cpu = 0;
    while (at <= last && isDigit(bytes[at])) cpu = cpu * 10 + bytes[at++]! - ZERO;
    const flags = last + 1 - at;
    if (at === first + 1 || cpu > 0xffff || flags < FEWEST_FLAGS || flags > MOST_FLAGS) return false;
    this.read(bytes, from, first, strings);
    if (!this.hyphen) return false;
    this.cpu = cpu;
    this.says |= SAYS_CPU;
    this.cpuEnd = at;
    return true;
  }

  /** Behind the number of the CPU that {@link readLatency} read. */
  cpuEnd = 0;

  #number(bytes: Uint8Array, first: number, last: number): number {
    let pid = 0;
    for (let i = first + 1; i <= last; i++) pid = pid * 10 + bytes[i]! - ZERO;
    this.pid = pid | 0;
    this.says |= SAYS_PID;
    return first;
  }
}
