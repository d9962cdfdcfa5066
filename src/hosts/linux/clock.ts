/** The machine's own clock: monotonic time, and timers of Node. */
import type { Clock, Timer } from "../../platform/index.ts";

/** Real time, milliseconds since some moment. */
export class MonotonicClock implements Clock {
  nowMs(): number {
    return performance.now();
  }

  /** Delays below a millisecond end at the next turn of the event loop: Node has no finer timers. */
  after(delayMs: number, callback: () => void): Timer {
    if (delayMs < 1) {
      const immediate = setImmediate(callback);
      return { cancel: () => clearImmediate(immediate) };
    }
    const timer = setTimeout(callback, delayMs);
    return { cancel: () => clearTimeout(timer) };
  }
}
