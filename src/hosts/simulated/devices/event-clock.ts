/**
 * Virtual time that jumps from event to event, as fast as the work in between is done.
 *
 * Idea: a heap of timers. {@link EventClock.run} moves on to the next one again and again, until a promise has settled, and lets
 * everything that waits for a promise go on in between. So a program that awaits a simulated device runs to its end without a
 * real clock, and the same way every time.
 * Promises: timers run in order of due time, then of setting. Not for: machines whose time is moved by hand (VirtualClock).
 */
import { DmaError } from "../../../base/index.ts";
import type { Clock, Timer } from "../../../platform/index.ts";

class Pending implements Timer {
  readonly dueMs: number;
  readonly sequence: number;
  callback: (() => void) | undefined;

  constructor(dueMs: number, sequence: number, callback: () => void) {
    this.dueMs = dueMs;
    this.sequence = sequence;
    this.callback = callback;
  }

  cancel(): void {
    this.callback = undefined;
  }

  isBefore(other: Pending): boolean {
    return this.dueMs < other.dueMs || (this.dueMs === other.dueMs && this.sequence < other.sequence);
  }
}

/** How often promises get a turn between two events: as long as any chain of them in a driver. */
const TURNS = 16;

export class EventClock implements Clock {
  #nowMs = 0;
  #sequence = 0;
  /** A binary heap, the next event first; cancelled ones stay until they come up. */
  readonly #heap: Pending[] = [];

  nowMs(): number {
    return this.#nowMs;
  }

  after(delayMs: number, callback: () => void): Timer {
    const timer = new Pending(this.#nowMs + delayMs, this.#sequence++, callback);
    this.#push(timer);
    return timer;
  }

  /** Runs the next event; false if there is none. */
  step(): boolean {
    for (let timer = this.#pop(); timer; timer = this.#pop()) {
      const { callback } = timer;
      if (!callback) continue;
      this.#nowMs = timer.dueMs;
      callback();
      return true;
    }
    return false;
  }

  /** Runs what falls due in the next `ms`, and moves on to their end. */
  advance(ms: number): void {
    const end = this.#nowMs + ms;
    while (this.#heap[0] && this.#heap[0].dueMs <= end) this.step();
    this.#nowMs = end;
  }

  /**
   * Moves time on until `promise` has settled, and answers as it does.
   *
   * @throws DmaError (rejects) ERR_DMA_SIM_STUCK (ETIMEDOUT) if nothing is left to happen and it has not
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
      if (!this.step()) throw stuck(this.#nowMs);
    }
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

  #pop(): Pending | undefined {
    const heap = this.#heap;
    const first = heap[0];
    const last = heap.pop();
    if (!first || first === last) return first;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && heap[child + 1]!.isBefore(heap[child]!)) child++;
      if (!heap[child]!.isBefore(last!)) break;
      heap[at] = heap[child]!;
      at = child;
    }
    heap[at] = last!;
    return first;
  }
}

const stuck = (nowMs: number): DmaError =>
  new DmaError(
    "ERR_DMA_SIM_STUCK",
    "ETIMEDOUT",
    `at ${nowMs} ms nothing is left to happen, and what was waited for has not: is an interrupt or a timer missing?`,
    { nowMs },
  );
