/**
 * A part of a trace by time: what lies before and after is as if it had not been recorded.
 *
 * Idea: the events of a trace come in time order, so a part is a slice of each batch, and reading ends where the part does.
 * Promises: what began before the part is "before the recording" to whoever reads on, and what does not end in it is live at its
 * end; a part without any event is an error that says from when to when the trace goes. Events lost anywhere count as lost.
 */
import { DmaError } from "../../../base/index.ts";
import type { EventBatch, Trace } from "../../../trace/index.ts";

/** A time on the trace's own clock, or since its first event. */
export interface Moment {
  readonly sinceFirst: boolean;
  readonly ns: bigint;
}

/** From when (inclusive) to when (exclusive). */
export interface TimeWindow {
  readonly from?: Moment | undefined;
  readonly to?: Moment | undefined;
}

const NS_OF: Readonly<Record<string, number>> = {
  ns: 1,
  us: 1_000,
  ms: 1_000_000,
  s: 1_000_000_000,
  m: 60_000_000_000,
};

/** "9.257996" (seconds, as the trace prints them), "+1.5s", "+250ms" since the first event; `undefined`: neither. */
export function parseMoment(word: string): Moment | undefined {
  const match = /^(\+?)(\d{1,10})(?:\.(\d{1,9}))?(ns|us|ms|s|m)?$/.exec(word);
  if (!match) return undefined;
  const [, plus, whole, part = "", unit = "s"] = match;
  const factor = BigInt(NS_OF[unit]!);
  return {
    sinceFirst: plus === "+",
    ns: BigInt(whole!) * factor + (BigInt(part.padEnd(9, "0")) * factor) / 1_000_000_000n,
  };
}

/** The part of `trace` in `window`; all of it where no time is given. */
export function windowed(trace: Trace, { from, to }: TimeWindow): Trace {
  return from || to ? new TracePart(trace, from, to) : trace;
}

class TracePart implements Trace {
  readonly #whole: Trace;
  readonly #from: Moment | undefined;
  readonly #to: Moment | undefined;

  constructor(whole: Trace, from: Moment | undefined, to: Moment | undefined) {
    this.#whole = whole;
    this.#from = from;
    this.#to = to;
  }

  get format(): Trace["format"] {
    return this.#whole.format;
  }
  get types(): Trace["types"] {
    return this.#whole.types;
  }
  get strings(): Trace["strings"] {
    return this.#whole.strings;
  }
  get buffers(): Trace["buffers"] {
    return this.#whole.buffers;
  }
  get clock(): string | undefined {
    return this.#whole.clock;
  }
  get chains(): Trace["chains"] {
    return this.#whole.chains;
  }
  get timing(): Trace["timing"] {
    return this.#whole.timing;
  }
  get longBytes(): number | undefined {
    return this.#whole.longBytes;
  }
  get remarks(): Trace["remarks"] {
    return this.#whole.remarks;
  }
  get cpus(): number | undefined {
    return this.#whole.cpus;
  }
  get system(): string | undefined {
    return this.#whole.system;
  }
  get timeBase(): bigint {
    return this.#whole.timeBase;
  }
  get lost(): number {
    return this.#whole.lost;
  }
  get damage(): Trace["damage"] {
    return this.#whole.damage;
  }

  async *batches(): AsyncGenerator<EventBatch> {
    let [firstNs, lastNs, found] = [-1, 0, 0];
    let [from, to] = [Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY];
    for await (const batch of this.#whole.batches()) {
      if (batch.count === 0) continue;
      if (firstNs < 0) {
        firstNs = batch.timeNs[0]!;
        if (this.#from) from = this.#since(this.#from, firstNs);
        if (this.#to) to = this.#since(this.#to, firstNs);
      }
      lastNs = batch.timeNs[batch.count - 1]!;
      if (batch.timeNs.subarray(0, batch.count).every((ns) => ns >= to)) break;
      const part = partOf(batch, from, to);
      found += part.count;
      if (part.count > 0) yield part;
    }
    if (found === 0 && firstNs >= 0) throw this.#nothing(firstNs, lastNs);
  }

  /** `moment` in nanoseconds since the time base. */
  #since({ sinceFirst, ns }: Moment, firstNs: number): number {
    return sinceFirst ? firstNs + Number(ns) : Number(ns - this.timeBase);
  }

  #nothing(firstNs: number, lastNs: number): DmaError {
    const said = (ns: number): string => (Number((this.timeBase + BigInt(Math.round(ns))) / 1000n) / 1e6).toFixed(6);
    return new DmaError(
      "ERR_DMA_INPUT",
      "EINVAL",
      `no event lies between --from and --to: the first is at ${said(firstNs)} s, the last that was read at ${said(lastNs)} s`,
      { firstNs, lastNs },
    );
  }
}

/** The events of `batch` from `from` to `to`, nanoseconds since the time base; copies only at the edges of the part. */
function partOf(batch: EventBatch, from: number, to: number): EventBatch {
  const { count, timeNs } = batch;
  const isIn = (row: number): boolean => timeNs[row]! >= from && timeNs[row]! < to;
  const rows: number[] = [];
  for (let row = 0; row < count; row++) if (isIn(row)) rows.push(row);
  if (rows.length === count) return batch;
  return {
    count: rows.length,
    type: Uint32Array.from(rows, (row) => batch.type[row]!),
    cpu: Uint16Array.from(rows, (row) => batch.cpu[row]!),
    pid: Int32Array.from(rows, (row) => batch.pid[row]!),
    task: Uint32Array.from(rows, (row) => batch.task[row]!),
    buffer: Uint16Array.from(rows, (row) => batch.buffer[row]!),
    chain: Uint32Array.from(rows, (row) => batch.chain[row]!),
    timeNs: Float64Array.from(rows, (row) => timeNs[row]!),
    start: Uint32Array.from(rows, (row) => batch.start[row]!),
    words: batch.words,
  };
}
