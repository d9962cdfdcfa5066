/**
 * The front of a line of a kernel log: when, how urgent, whose, in every form in which such logs are kept.
 *
 * Idea: a front is a few pieces one behind the other (a date, a host, `kernel:`, a priority, the kernel's own stamp), each with a
 * pattern of its own; they are taken off until none fits, and what is left is the message. Of two times the kernel's own is kept:
 * it is finer, and its clock is the one that a trace can be compared with.
 * Promises: a line costs its length; what has no front that is known is a message without a time.
 * Specified by: dmesg(1) of util-linux (`-x -T -r -d -e --time-format`), journalctl(1) (`-o short…`), syslog of RFC 3164 and 5424.
 */

/** What the time of a line counts from: `boot` is the kernel's own stamp; `wall` a date; `none`: the line has no time. */
export type LogClock = "boot" | "wall" | "none";

/** What stands before a message in its line: time, level, who wrote it. */
export interface LogFront {
  /** False: the line is another program's (a system log holds those too). */
  readonly kernel: boolean;
  /** Something of a front was there that only a kernel log has: a stamp, a level, `kernel:`; not a date alone. */
  readonly sure: boolean;
  /** What its time counts from. */
  readonly clock: LogClock;
  /** Since boot, or since 1970; a date without a zone is taken as UTC, one without a year as of 2000. */
  readonly seconds: number;
  /** Within the second. */
  readonly nanoseconds: number;
  /** How fine the time is printed. */
  readonly resolutionNs: number;
  /** 0 emergency to 7 debug; `undefined` where it is not printed. */
  readonly level: number | undefined;
  /** What is left of the line. */
  readonly message: string;
}

const SECOND_NS = 1e9;
const MINUTE_NS = 60 * SECOND_NS;
/** A date without a year: any leap year, so that 29 February exists. */
const YEARLESS = 2000;
const LEVELS = ["emerg", "alert", "crit", "err", "warn", "notice", "info", "debug"];
const MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

/** `[   12.345678] `, also with the time since the line before: `[   12.345678 <    0.000012>] `. */
const BOOT = /\[ *(\d{1,12})\.(\d{1,9})(?: *<[ +\d.]*>)?\] ?/y;
/** `[<    0.000012>] `, `[  +0.000012] `: only the time since the line before. */
const DELTA = /\[(?:<[ +\d.]*>| *\+\d[\d.]*)\] ?/y;
/** `[  T123] `, `[ C0] `: the task or processor that printed. */
const CALLER = /\[ *[TC]\d{1,10}\] ?/y;
/** `<3>`, and of RFC 5424 `<3>1 `. */
const PRIORITY = /<(\d{1,3})>(1 )?/y;
/** `kern  :err   : `. */
const FACILITY =
  /(kern|user|mail|daemon|auth|syslog|lpr|news|uucp|cron|authpriv|ftp|local\d) *:(emerg|alert|crit|err|warn|notice|info|debug) *: ?/y;
/** `[Wed Oct 25 12:25:45 2023] `. */
const CTIME = /\[?\p{L}{2,5}\.? (\p{L}{3,5})\.? +(\d{1,2}) (\d\d):(\d\d):(\d\d) (\d{4})(?: *<[ +\d.]*>)?\]? ?/uy;
/** `[Oct25 12:25] `: the first line of a minute, as `dmesg -e` prints it. */
const MINUTE = /\[(\p{L}{3})( ?\d{1,2}) (\d\d):(\d\d)\] ?/uy;
/** `Oct 25 12:25:45 `. */
const SYSLOG = /(\p{L}{3,5})\.? +(\d{1,2}) (\d\d):(\d\d):(\d\d)(?:[.,](\d{1,9}))? /uy;
/** `Wed 2023-10-25 12:25:45 CEST `. */
const FULL =
  /\p{L}{2,5}\.? (\d{4})-(\d\d)-(\d\d) (\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))? ([A-Za-z]{1,6}|[+-]\d\d:?\d\d) /uy;
/** `2023-10-25T12:25:45+02:00 `, with a comma and the fraction as dmesg prints it, in brackets as terminal programs do. */
const ISO = /(\[?)(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d)(?:([.,])(\d{1,9}))?(Z|[+-]\d\d(?::?\d\d)?)?(?:\] ?| )/y;
/** `1698229545.123456 host kernel: `. */
const UNIX = /(\d{9,11})\.(\d{6}) (?=\S{1,255} \S{1,80}: )/y;
/** `host kernel: `, `kernel: `, and with the facility that small systems put between. */
const KERNEL = /(?:\S{1,255} )?(?:[a-z0-9]{2,8}\.[a-z]{3,6} )?kernel(?:\[[^\]]{0,20}\])?: ?/y;
/** `host program[123]: `. */
const PROGRAM = /\S{1,255} [^\s:[\]]{1,64}(?:\[\d{1,10}\])?: ?/y;
/** `host kernel - - - `, of RFC 5424. */
const RFC5424 = /\S{1,255} (\S{1,64}) \S{1,128} \S{1,32} (?:-|\[[^\]]{0,512}\]) ?/y;

/** Reads fronts, one line after the other: a year that is not printed is told from the order of the months. */
export class LogFronts {
  #line = "";
  #at = 0;
  #year = YEARLESS;
  #month = -1;

  /** The front of `line`, and its message. Lines are given in the order of the log. */
  read(line: string): LogFront {
    this.#line = line;
    this.#at = 0;
    let kernel = true;
    let sure = false;
    let level: number | undefined;
    let time: Time = NO_TIME;
    for (let piece = 0; piece < MOST_PIECES; piece++) {
      let match = this.#take(BOOT);
      if (match) {
        sure = true;
        time = { clock: "boot", seconds: Number(match[1]), ...fractionOf(match[2]) };
        continue;
      }
      match = this.#take(PRIORITY);
      if (match) {
        sure = true;
        level = Number(match[1]) & 7;
        if (match[2] === undefined) continue;
        const stamp = this.#wall();
        if (stamp && time.clock !== "boot") time = stamp.time;
        const header = this.#take(RFC5424);
        if (header) kernel = header[1] === "kernel";
        continue;
      }
      match = this.#take(FACILITY);
      if (match) {
        sure = true;
        level = LEVELS.indexOf(match[2]!);
        kernel = match[1] === "kern";
        continue;
      }
      if (this.#take(CALLER) || this.#take(DELTA)) {
        sure = true;
        continue;
      }
      const stamp = time.clock === "wall" ? undefined : this.#wall();
      if (stamp) {
        if (stamp.sure) sure = true;
        if (time.clock === "none") time = stamp.time;
        // A host stands behind the dates of a system log, never behind those that dmesg or a terminal program prints.
        if (!stamp.host) continue;
        if (this.#take(KERNEL)) sure = true;
        else if (this.#take(PROGRAM)) kernel = false;
        continue;
      }
      if (!this.#take(KERNEL)) break;
      sure = true;
    }
    return { kernel, sure, level, ...time, message: line.slice(this.#at) };
  }

  #take(pattern: RegExp): RegExpExecArray | undefined {
    pattern.lastIndex = this.#at;
    const match = pattern.exec(this.#line);
    if (!match) return undefined;
    this.#at = pattern.lastIndex;
    return match;
  }

  /** A date. */
  #wall(): Dated | undefined {
    let match = this.#take(CTIME);
    if (match) {
      const [, month, day, hour, minute, second, year] = match;
      return { time: dated(Number(year), monthOf(month!), day!, hour!, minute!, second!), host: false, sure: true };
    }
    match = this.#take(ISO);
    if (match) {
      const [, bracket, year, month, day, hour, minute, second, point, fraction, zone] = match;
      const time = dated(Number(year), Number(month) - 1, day!, hour!, minute!, second!, fraction, zone);
      return { time, host: bracket === "" && point !== ",", sure: point === "," };
    }
    match = this.#take(FULL);
    if (match) {
      const [, year, month, day, hour, minute, second, fraction, zone] = match;
      return {
        time: dated(Number(year), Number(month) - 1, day!, hour!, minute!, second!, fraction, zone),
        host: true,
        sure: false,
      };
    }
    match = this.#take(SYSLOG);
    if (match) {
      const [, name, day, hour, minute, second, fraction] = match;
      const month = monthOf(name!);
      return {
        time: dated(this.#yearOf(month), month, day!, hour!, minute!, second!, fraction),
        host: true,
        sure: false,
      };
    }
    match = this.#take(MINUTE);
    if (match) {
      const [, name, day, hour, minute] = match;
      const month = monthOf(name!);
      const time = dated(this.#yearOf(month), month, day!, hour!, minute!, "00");
      return { time: time.clock === "none" ? time : { ...time, resolutionNs: MINUTE_NS }, host: false, sure: true };
    }
    match = this.#take(UNIX);
    if (!match) return undefined;
    return { time: { clock: "wall", seconds: Number(match[1]), ...fractionOf(match[2]) }, host: true, sure: false };
  }

  /** A log that goes from December to January goes into the next year. */
  #yearOf(month: number): number {
    if (month >= 0) {
      if (this.#month - month > 6) this.#year++;
      this.#month = month;
    }
    return this.#year;
  }
}

type Time = Pick<LogFront, "clock" | "seconds" | "nanoseconds" | "resolutionNs">;

/** A date at the beginning of a line. */
interface Dated {
  readonly time: Time;
  /** A host's name may follow. */
  readonly host: boolean;
  /** Only a kernel log has it in this form. */
  readonly sure: boolean;
}

/** Fronts have fewer pieces than this. */
const MOST_PIECES = 8;

const NO_TIME = { clock: "none", seconds: 0, nanoseconds: 0, resolutionNs: 0 } as const;

const monthOf = (name: string): number => MONTHS.indexOf(name.slice(0, 3).toLowerCase());

function fractionOf(digits: string | undefined): Pick<LogFront, "nanoseconds" | "resolutionNs"> {
  if (digits === undefined) return { nanoseconds: 0, resolutionNs: SECOND_NS };
  const resolutionNs = 10 ** (9 - digits.length);
  return { nanoseconds: Number(digits) * resolutionNs, resolutionNs };
}

function dated(
  year: number,
  month: number,
  day: string,
  hour: string,
  minute: string,
  second: string,
  fraction?: string,
  zone?: string,
): Time {
  if (month < 0 || month > 11) return NO_TIME; // a month in a language that is not known here
  const ms = Date.UTC(year, month, Number(day), Number(hour), Number(minute), Number(second));
  return { clock: "wall", seconds: ms / 1000 - zoneSeconds(zone), ...fractionOf(fraction) };
}

/** `+02:00`, `+0200`, `+02` in seconds; a zone by name is not known, and taken as UTC. */
function zoneSeconds(zone: string | undefined): number {
  const match = zone === undefined ? undefined : /^([+-])(\d\d):?(\d\d)?$/.exec(zone);
  if (!match) return 0;
  return (match[1] === "-" ? -1 : 1) * (Number(match[2]) * 60 + Number(match[3] ?? 0)) * 60;
}
