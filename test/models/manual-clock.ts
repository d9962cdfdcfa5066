/**
 * A clock that moves when told. Due callbacks run in order of due time, then of setting; a callback may set timers.
 *
 * Not for: anything but tests and benchmarks.
 */
import type { Clock, Timer } from "../../src/platform/index.ts";

interface Waiting {
  readonly due: number;
  readonly callback: () => void;
}

export class ManualClock implements Clock {
  #now = 0;
  #timers: Waiting[] = [];

  nowMs(): number {
    return this.#now;
  }

  /** How many callbacks wait. */
  get waiting(): number {
    return this.#timers.length;
  }

  after(delayMs: number, callback: () => void): Timer {
    const timer = { due: this.#now + delayMs, callback };
    this.#timers.push(timer);
    return {
      cancel: () => {
        this.#timers = this.#timers.filter((other) => other !== timer);
      },
    };
  }

  advance(ms: number): void {
    const end = this.#now + ms;
    for (;;) {
      let next: Waiting | undefined;
      for (const timer of this.#timers)
        if (timer.due <= end && (next === undefined || timer.due < next.due)) next = timer;
      if (next === undefined) break;
      this.#timers = this.#timers.filter((timer) => timer !== next);
      this.#now = next.due;
      next.callback();
    }
    this.#now = end;
  }
}
