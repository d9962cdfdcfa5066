/** A clock that moves only when told: a simulated machine's time. Timers run in order of due time, then of setting. */
import type { Clock, Timer } from "../../platform/index.ts";

interface Pending {
  readonly dueMs: number;
  readonly sequence: number;
  readonly callback: () => void;
}

export class VirtualClock implements Clock {
  #nowMs = 0;
  #sequence = 0;
  readonly #pending = new Set<Pending>();

  nowMs(): number {
    return this.#nowMs;
  }

  after(delayMs: number, callback: () => void): Timer {
    const timer: Pending = { dueMs: this.#nowMs + delayMs, sequence: this.#sequence++, callback };
    this.#pending.add(timer);
    return { cancel: () => void this.#pending.delete(timer) };
  }

  /** Timers that wait. */
  get pending(): number {
    return this.#pending.size;
  }

  /** Moves on by `ms` and runs what falls due on the way. */
  advance(ms: number): void {
    this.advanceTo(this.#nowMs + ms);
  }

  /** Moves on to `ms`; a time that has passed changes nothing. */
  advanceTo(ms: number): void {
    for (;;) {
      let next: Pending | undefined;
      for (const timer of this.#pending)
        if (
          timer.dueMs <= ms &&
          (!next || timer.dueMs < next.dueMs || (timer.dueMs === next.dueMs && timer.sequence < next.sequence))
        )
          next = timer;
      if (!next) break;
      this.#pending.delete(next);
      this.#nowMs = Math.max(this.#nowMs, next.dueMs);
      next.callback();
    }
    this.#nowMs = Math.max(this.#nowMs, ms);
  }
}
