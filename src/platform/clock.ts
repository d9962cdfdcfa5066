/**
 * Time, as an argument: what the stack asks of a machine's clock.
 *
 * Idea: code below `hosts` never reads a wall clock and never sleeps; it is handed a clock, which may be a real one or
 * one that a test moves by hand. Promises nothing about how late a callback is, only that it is never early.
 * Not for: measuring (benchmarks have their own).
 */

/** A callback that waits for its time. */
export interface Timer {
  /** The callback will not run any more. After it ran, or a second time: does nothing. */
  cancel(): void;
}

/** A clock that never goes backwards, with timers. Times are milliseconds, fractions allowed. */
export interface Clock {
  /** Milliseconds since a fixed but unspecified moment. */
  nowMs(): number;
  /** Runs `callback` once, `delayMs` (0 or more) from now; timers due at the same time run in the order they were set. */
  after(delayMs: number, callback: () => void): Timer;
}
