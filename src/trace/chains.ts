/**
 * Call chains: who called, for every event that was recorded with its stack.
 *
 * Idea: a chain is a property of its event (`EventBatch.chain`), not an event of its own; equal chains are kept once. A
 * frame is the name of a function, without the offset into it, so that two calls from one function are one chain.
 * Promises: chain 0 is the empty one; an index never changes its meaning; memory is bounded. Frames of user space are
 * left out. Not for: the place within a function.
 */
import type { CallChain } from "./call-chain.ts";
import type { Columns } from "./columns.ts";
import { StringTable } from "./string-table.ts";

/** Functions that record the event, and are called by the one that is traced. */
const TRACING =
  /^(?:trace_event_raw_event_|trace_event_buffer_commit$|__traceiter_|__do_trace_|perf_trace_|trace_call_bpf)/;
/** Chains past this many are not kept. */
const MOST_CHAINS = 1 << 20;
/** Frames of one chain; the kernel records no more than 127 as a rule. */
export const MOST_FRAMES = 256;

export class ChainTable {
  readonly list: CallChain[] = [[]];
  readonly frames: StringTable = new StringTable();
  /** The frames of the chain that is being put together, as indices into `frames`. */
  readonly #open = new Int32Array(MOST_FRAMES);
  #length = 0;
  readonly #ids: Int32Array[] = [new Int32Array(0)];
  #slots = new Int32Array(256).fill(-1);

  /** Adds the next frame, the caller of the one before. Those of the tracing itself, which come first, are left out. */
  add(frame: number): void {
    if (this.#length === 0 && TRACING.test(this.frames.list[frame]!)) return;
    if (this.#length < MOST_FRAMES) this.#open[this.#length++] = frame;
  }

  /** Frames of the chain that is being put together. */
  get open(): number {
    return this.#length;
  }

  /** Ends the chain: its index; 0 where it has no frames, or too many chains were kept. */
  end(): number {
    const length = this.#length;
    this.#length = 0;
    if (length === 0) return 0;
    let hash = length;
    for (let i = 0; i < length; i++) hash = Math.imul(hash ^ this.#open[i]!, 0x01000193);
    hash ^= hash >>> 15;
    let mask = this.#slots.length - 1;
    let slot = hash & mask;
    for (let index = this.#slots[slot]!; index >= 0; index = this.#slots[slot]!) {
      if (this.#isOpen(index, length)) return index;
      slot = (slot + 1) & mask;
    }
    if (this.list.length >= MOST_CHAINS) return 0;
    const ids = this.#open.slice(0, length);
    const index = this.list.push(Array.from(ids, (id) => this.frames.list[id]!)) - 1;
    this.#ids.push(ids);
    this.#slots[slot] = index;
    if (this.list.length * 2 > this.#slots.length) {
      this.#slots = new Int32Array(this.#slots.length * 2).fill(-1);
      mask = this.#slots.length - 1;
      for (let one = 1; one < this.#ids.length; one++) {
        let again = this.#ids[one]!.length;
        for (const id of this.#ids[one]!) again = Math.imul(again ^ id, 0x01000193);
        let free = (again ^ (again >>> 15)) & mask;
        while (this.#slots[free]! >= 0) free = (free + 1) & mask;
        this.#slots[free] = one;
      }
    }
    return index;
  }

  #isOpen(index: number, length: number): boolean {
    const ids = this.#ids[index]!;
    if (ids.length !== length) return false;
    for (let i = 0; i < length; i++) if (ids[i] !== this.#open[i]) return false;
    return true;
  }
}

/** Rows past a full batch, where a stack may still come for one of its events. */
export const LINGER = 64;
/** Rows of one CPU that may still get their chain: an interrupt puts its own events between an event and its stack. */
const NESTED = 4;

/**
 * Which row of the batch at hand a stack belongs to: the last one of its CPU and buffer that has none yet.
 *
 * Idea: nothing is kept before the first stack of a file, as most files have none.
 */
export class AwaitingChain {
  /** By CPU and buffer: how many rows wait, and the rows, the last one last. */
  readonly #rows = new Map<number, Int32Array>();
  /** Rows that wait, on all CPUs. */
  #waiting = 0;
  /** A stack was seen. */
  isOn = false;

  /** An event was appended. */
  event(cpu: number, buffer: number, row: number): void {
    const key = buffer * 65536 + cpu;
    let rows = this.#rows.get(key);
    if (!rows) {
      rows = new Int32Array(NESTED + 1);
      this.#rows.set(key, rows);
    }
    if (rows[0] === NESTED) rows.copyWithin(1, 2);
    else {
      rows[0]!++;
      this.#waiting++;
    }
    rows[rows[0]!] = row;
  }

  /** The row that a stack belongs to; -1: it is not in this batch. */
  take(cpu: number, buffer: number, batch: Columns): number {
    if (!this.isOn) {
      this.isOn = true;
      for (let row = 0; row < batch.count; row++) this.event(batch.cpu[row]!, batch.buffer[row]!, row);
    }
    const rows = this.#rows.get(buffer * 65536 + cpu);
    if (!rows || rows[0] === 0) return -1;
    this.#waiting--;
    return rows[rows[0]!--]!;
  }

  get isWaiting(): boolean {
    return this.#waiting > 0;
  }

  /** The batch was handed on. */
  clear(): void {
    if (this.#waiting === 0) return;
    for (const rows of this.#rows.values()) rows[0] = 0;
    this.#waiting = 0;
  }
}
