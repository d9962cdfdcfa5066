/**
 * A clock that moves only when told: a simulated machine's time. Timers run in order of due time, then of setting.
 *
 * Idea: a heap of timers. {@link VirtualClock.run} moves on from one to the next until a promise has settled, and lets everything
 * that waits for a promise go on in between: so a program that awaits a simulated device runs to its end as fast as the work is
 * done, and the same way every time.
 */
import type { Clock, Timer } from "../../platform/index.ts";
import { badTime, stuckInTime } from "./errors.ts";

class Pending implements Timer {
  readonly dueMs: number;
  readonly sequence: number;
  callback: (() => void) | undefined;
  readonly #cancelled: () => void;

  constructor(dueMs: number, sequence: number, callback: () => void, cancelled: () => void) {
    this.dueMs = dueMs;
    this.sequence = sequence;
    this.callback = callback;
    this.#cancelled = cancelled;
  }

  cancel(): void {
    if (this.callback !== undefined) this.#cancelled();
    this.callback = undefined;
  }

  isBefore(other: Pending): boolean {
    return this.dueMs < other.dueMs || (this.dueMs === other.dueMs && this.sequence < other.sequence);
  }
}

/** How often promises get a turn between two events: longer than most chains of them. */
const TURNS = 16;
/** And when no event is left, before it is called stuck: longer than any. */
const LAST_TURNS = 4096;

/** Time that moves when told: timers fire in order, and nothing ever waits for real. */
export class VirtualClock implements Clock {
  #nowMs = 0;
  #sequence = 0;
  #live = 0;
  /** A binary heap, the next timer first; cancelled ones stay until they come up. */
  readonly #heap: Pending[] = [];
  readonly #cancelled = (): void => {
    this.#live--;
  };

  nowMs(): number {
    return this.#nowMs;
  }

  /** @throws DmaError ERR_DMA_SIM_TIME (EINVAL): no number of milliseconds; below 0 counts as 0 */
  after(delayMs: number, callback: () => void): Timer {
    if (typeof delayMs !== "number" || Number.isNaN(delayMs)) throw badTime("a delay", delayMs);
    const timer = new Pending(this.#nowMs + delayMs, this.#sequence++, callback, this.#cancelled);
    this.#push(timer);
    this.#live++;
    return timer;
  }

  /** Timers that wait. */
  get pending(): number {
    return this.#live;
  }

  /** Moves on by `ms` and runs what falls due on the way. @throws DmaError ERR_DMA_SIM_TIME (EINVAL): no number of milliseconds */
  advance(ms: number): void {
    this.advanceTo(this.#nowMs + ms);
  }

  /** Moves on to `ms`; a time that has passed changes nothing. @throws DmaError ERR_DMA_SIM_TIME (EINVAL): no number of milliseconds */
  advanceTo(ms: number): void {
    if (typeof ms !== "number" || Number.isNaN(ms) || ms === Number.POSITIVE_INFINITY) throw badTime("a time", ms);
    while (this.#step(ms));
    this.#nowMs = Math.max(this.#nowMs, ms);
  }

  /** Moves on to the next timer and runs it; false if there is none. */
  step(): boolean {
    return this.#step(Number.POSITIVE_INFINITY);
  }

  /**
   * Moves on, timer by timer, until `promise` has settled, and answers as it does.
   *
   * @throws DmaError (rejects) ERR_DMA_SIM_STUCK (ETIMEDOUT) if no timer is left and it has not settled
   */
  async run<T>(promise: Promise<T>): Promise<T> {
    let settled = false;
    const done = (): void => {
      settled = true;
    };
    promise.then(done, done);
    for (;;) {
      for (let turn = 0; turn < TURNS && !settled; turn++) await undefined;
      if (settled) return promise;
      if (this.step()) continue;
      for (let turn = 0; turn < LAST_TURNS && !settled && this.#live === 0; turn++) await undefined;
      if (!settled && this.#live === 0) throw stuckInTime(this.#nowMs);
    }
  }

  #step(untilMs: number): boolean {
    for (let timer = this.#heap[0]; timer && timer.dueMs <= untilMs; timer = this.#heap[0]) {
      this.#pop();
      const { callback } = timer;
      if (callback === undefined) continue;
      timer.callback = undefined; // it can be cancelled no more
      this.#live--;
      this.#nowMs = Math.max(this.#nowMs, timer.dueMs);
      callback();
      return true;
    }
    return false;
  }

  #push(timer: Pending): void {
    const heap = this.#heap;
    let at = heap.length;
    heap.push(timer);
    while (at > 0) {
      const parent = (at - 1) >>> 1;
      if (!timer.isBefore(heap[parent]!)) break;
      heap[at] = heap[parent]!;
      at = parent;
    }
    heap[at] = timer;
  }

  /** Takes the first timer out. */
  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop()!;
    if (heap.length === 0) return;
    let at = 0;
    for (let child = 1; child < heap.length; child = 2 * at + 1) {
      if (child + 1 < heap.length && heap[child + 1]!.isBefore(heap[child]!)) child++;
      if (!heap[child]!.isBefore(last)) break;
      heap[at] = heap[child]!;
      at = child;
    }
    heap[at] = last;
  }
}
