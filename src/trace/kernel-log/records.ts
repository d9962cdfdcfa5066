/**
 * Kernel logs as records: `journalctl -o json`, `-o export` and `-o verbose`, and `dmesg --json`.
 *
 * Idea: the four have one thing in common, that a record names its fields, so one small machine gathers the fields that matter
 * (message, times, who wrote it) until a record ends. Promises: never more than one record in memory, and a line is looked at once.
 * Not for: other programs' records; they are counted as such.
 * Specified by: systemd's journal export and JSON formats; dmesg(1).
 */
import type { LogFront } from "./line-front.ts";

const MICROSECOND_NS = 1000;
const MICROSECONDS = 1e6;

/** The fields of a record that matter here. */
interface Gathered {
  message?: string;
  /** Microseconds since boot, by the kernel's own clock where it is given. */
  bootUs?: number;
  /** Microseconds since 1970. */
  wallUs?: number;
  priority?: number;
  program?: string;
}

/** What one line did. */
type RecordLine = LogFront | "taken" | "not-a-record";

const FIELD = /^ *([A-Z_][A-Z0-9_]{1,63})=(.*)$/;
/** `"pri": 3,` of dmesg's own JSON, which has a line for each field. */
const JSON_FIELD = /^\s*"(pri|time|msg|caller)":\s*(.*?),?\s*$/;

export class LogRecords {
  #open: Gathered | undefined;

  /** Takes `line`: a whole record, a part of one, or neither. */
  read(line: string): RecordLine {
    const first = line[0];
    if (first === "{" && line.includes('"MESSAGE"')) return journalObject(line) ?? "not-a-record";
    if (first === " " || first === "\t" || first === '"' || first === "{" || first === "}" || first === "]") {
      const own = this.#dmesgObject(line);
      if (own !== "not-a-record") return own;
    }
    const field = FIELD.exec(line);
    if (field) {
      this.#open ??= {};
      gather(this.#open, field[1]!, field[2]!);
      return "taken";
    }
    if (this.#open && (line.trim() === "" || !line.startsWith(" "))) {
      const done = this.finish();
      if (done) return done;
    }
    return "not-a-record";
  }

  /** The record that was being gathered, if it has a message. */
  finish(): LogFront | undefined {
    const gathered = this.#open;
    this.#open = undefined;
    return gathered?.message === undefined ? undefined : frontOf(gathered);
  }

  #dmesgObject(line: string): RecordLine {
    const bare = line.trim();
    const field = JSON_FIELD.exec(line);
    if (field) {
      this.#open ??= { program: "kernel" };
      const [, name, value] = field;
      if (name === "pri") this.#open.priority = Number(value) & 7;
      else if (name === "time") this.#open.bootUs = Math.round(Number(value) * MICROSECONDS);
      else if (name === "msg") this.#open.message = jsonText(value!);
      return "taken";
    }
    if (bare === "{" || bare === '"dmesg": [' || bare === "]") return "taken";
    if (bare === "}" || bare === "},{" || bare === "},") return this.finish() ?? "taken";
    return "not-a-record";
  }
}

/** One line of `journalctl -o json`. */
function journalObject(line: string): LogFront | undefined {
  let fields: Record<string, unknown>;
  try {
    fields = JSON.parse(line) as Record<string, unknown>;
  } catch {
    return undefined; // cut, or no JSON at all: it is read as text
  }
  const gathered: Gathered = {};
  for (const [name, value] of Object.entries(fields)) {
    // A message that is no UTF-8 comes as an array of bytes.
    const text = Array.isArray(value) ? new TextDecoder().decode(Uint8Array.from(value as number[])) : String(value);
    gather(gathered, name, text);
  }
  return gathered.message === undefined ? undefined : frontOf(gathered);
}

function gather(record: Gathered, name: string, value: string): void {
  const us = Number(value);
  if (name === "MESSAGE") record.message = value;
  else if (name === "PRIORITY") record.priority = us & 7;
  else if (name === "SYSLOG_IDENTIFIER" || name === "_TRANSPORT") {
    if (record.program !== "kernel") record.program = value;
  } else if (name === "_SOURCE_MONOTONIC_TIMESTAMP" && Number.isFinite(us)) record.bootUs = us;
  else if (name === "__MONOTONIC_TIMESTAMP" && Number.isFinite(us)) record.bootUs ??= us;
  else if (name === "__REALTIME_TIMESTAMP" && Number.isFinite(us)) record.wallUs = us;
}

function frontOf({ message = "", bootUs, wallUs, priority, program }: Gathered): LogFront {
  const us = bootUs ?? wallUs;
  return {
    kernel: program === undefined || program === "kernel",
    sure: true,
    clock: bootUs !== undefined ? "boot" : us !== undefined ? "wall" : "none",
    seconds: us === undefined ? 0 : Math.floor(us / MICROSECONDS),
    nanoseconds: us === undefined ? 0 : (us % MICROSECONDS) * MICROSECOND_NS,
    resolutionNs: MICROSECOND_NS,
    level: priority,
    message,
  };
}

function jsonText(value: string): string {
  try {
    return String(JSON.parse(value));
  } catch {
    return value.replace(/^"|"$/g, "");
  }
}
