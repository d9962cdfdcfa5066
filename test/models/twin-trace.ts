/**
 * A recording as two devices of one kind would give it: every event twice, the second time of another device.
 *
 * Idea: the second device has a domain of its own, and so the same device addresses; its memory, its driver's states and its CPUs
 * are others, and it is always 37 microseconds behind. Where nothing translates, the address is the memory's (or a bounce
 * slot's), and moves with it. What is counted of such a trace must be twice what is counted of the original, exactly.
 * Works on any trace that can be read, in memory.
 */
import {
  type EventBatch,
  type EventType,
  type KnownEvent,
  known,
  type Role,
  type Trace,
} from "../../src/trace/index.ts";

const BEHIND_NS = 37_000;
/** The second device's memory begins so much higher, in units of 2^32 bytes; its states too. */
const HIGHER = 1;

/** One event, copied out of its batch: items of lists stand behind the words of the fields. */
interface Event {
  readonly type: number;
  readonly cpu: number;
  readonly pid: number;
  readonly task: number;
  readonly timeNs: number;
  readonly words: Uint32Array;
}

/** All of a trace in memory, to be read any number of times. */
export async function keptTrace(trace: Trace): Promise<() => Trace> {
  const events: Event[] = [];
  for await (const batch of trace.batches())
    for (let row = 0; row < batch.count; row++) events.push(copyOf(trace, batch, row));
  return () => ofEvents(trace, trace.strings, events);
}

/** The same with a second device. */
export async function twinTrace(trace: Trace): Promise<() => Trace> {
  const strings = new Strings();
  const events: Event[] = [];
  let cpus = 0;
  let translated = false;
  for await (const batch of trace.batches())
    for (let row = 0; row < batch.count; row++) {
      const event = copyOf(trace, batch, row);
      events.push(event);
      cpus = Math.max(cpus, event.cpu + 1);
      if (known(trace.types[event.type]!)?.meaning === "iommu-map") translated = true;
    }
  strings.push(...trace.strings);
  const twins = events.map((event): Event => {
    const type = trace.types[event.type]!;
    const words = event.words.slice();
    const found = known(type);
    if (found) change(type, found, words, strings, translated);
    return { ...event, words, cpu: event.cpu + cpus, timeNs: event.timeNs + BEHIND_NS };
  });
  const all = [...events, ...twins].sort((a, b) => a.timeNs - b.timeNs);
  return () => ofEvents({ ...viewOf(trace), cpus: cpus * 2 }, strings, all);
}

class Strings extends Array<string> {
  readonly #twins = new Map<number, number>();

  /** The name of the second device for the first one's. */
  twin(name: number): number {
    const seen = this.#twins.get(name);
    if (seen !== undefined) return seen;
    const twin = this.push(`twin of ${this[name]}`) - 1;
    this.#twins.set(name, twin);
    return twin;
  }
}

const MEMORY: readonly Role[] = ["physAddr", "state"];
const ADDRESSES: readonly Role[] = ["dmaAddr"];
const LISTS: readonly Role[] = ["physAddrs", "dmaAddrs"];

function change(
  type: EventType,
  { meaning, fields }: KnownEvent,
  words: Uint32Array,
  strings: Strings,
  translated: boolean,
): void {
  if (fields.device !== undefined) words[fields.device * 2] = strings.twin(words[fields.device * 2]!);
  const moved = meaning === "bounced" || !translated ? [...MEMORY, ...ADDRESSES] : MEMORY;
  for (const role of moved) {
    const field = fields[role];
    const high = field === undefined ? undefined : field * 2 + 1;
    if (high === undefined || (words[high] === 0xffff_ffff && words[high - 1] === 0xffff_ffff)) continue;
    words[high] = (words[high]! & 0xffff_0000) | ((words[high]! + HIGHER) & 0xffff);
  }
  for (const role of LISTS) {
    const field = fields[role];
    if (field === undefined || type.fields[field]!.kind !== "array" || (role === "dmaAddrs" && translated)) continue;
    const [first, count] = [words[field * 2]!, words[field * 2 + 1]!];
    for (let item = 0; item < count; item++) words[first + item * 2 + 1]! += HIGHER;
  }
}

function copyOf(trace: Trace, batch: EventBatch, row: number): Event {
  const type = batch.type[row]!;
  const { fields } = trace.types[type]!;
  const start = batch.start[row]!;
  const words: number[] = Array.from(batch.words.subarray(start, start + fields.length * 2));
  for (const [field, { kind }] of fields.entries()) {
    if (kind !== "array") continue;
    const [first, count] = [words[field * 2]!, words[field * 2 + 1]!];
    words[field * 2] = words.length;
    words.push(...batch.words.subarray(first, first + count * 2));
  }
  const [cpu, pid, task, timeNs] = [batch.cpu[row]!, batch.pid[row]!, batch.task[row]!, batch.timeNs[row]!];
  return { type, cpu, pid, task, timeNs, words: Uint32Array.from(words) };
}

const viewOf = (trace: Trace): Omit<Trace, "batches" | "strings"> => {
  const { format, types, buffers, chains, clock, timing, cpus, longBytes, system, timeBase, lost, remarks, damage } =
    trace;
  return { format, types, buffers, chains, clock, timing, cpus, longBytes, system, timeBase, lost, remarks, damage };
};

function ofEvents(
  trace: Omit<Trace, "batches" | "strings">,
  strings: readonly string[],
  events: readonly Event[],
): Trace {
  return {
    ...viewOf(trace as Trace),
    strings,
    async *batches() {
      for (let from = 0; from < events.length; from += BATCH)
        yield batchOf(trace.types, events.slice(from, from + BATCH));
    },
  };
}

const BATCH = 4096;

function batchOf(types: readonly EventType[], events: readonly Event[]): EventBatch {
  const words = new Uint32Array(events.reduce((sum, event) => sum + event.words.length, 0));
  const start = new Uint32Array(events.length);
  let at = 0;
  for (const [row, event] of events.entries()) {
    start[row] = at;
    words.set(event.words, at);
    for (const [field, { kind }] of types[event.type]!.fields.entries())
      if (kind === "array") words[at + field * 2]! += at;
    at += event.words.length;
  }
  return {
    count: events.length,
    type: Uint32Array.from(events, (event) => event.type),
    cpu: Uint16Array.from(events, (event) => event.cpu),
    pid: Int32Array.from(events, (event) => event.pid),
    task: Uint32Array.from(events, (event) => event.task),
    buffer: new Uint16Array(events.length),
    chain: new Uint32Array(events.length),
    timeNs: Float64Array.from(events, (event) => event.timeNs),
    start,
    words,
  };
}
