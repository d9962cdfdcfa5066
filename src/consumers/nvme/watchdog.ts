/**
 * The watchdog: looks for commands that have run out of time, and for completions of devices without interrupts.
 *
 * Idea: two timers for all commands, set only while commands are in flight: one looks for deadlines twice per time-out, the
 * other for completions.
 */
import type { Clock, Timer } from "../../platform/index.ts";

interface WatchdogOptions {
  readonly clock: Clock;
  readonly timeoutMs: number;
  /** How often to look for completions; undefined if the device has interrupts. */
  readonly pollMs: number | undefined;
  /** Is there anything to look after? */
  readonly busy: () => boolean;
  readonly lookForDeadlines: () => void;
  readonly lookForCompletions: () => void;
}

export class Watchdog {
  readonly #options: WatchdogOptions;
  #deadlines: Timer | undefined;
  #completions: Timer | undefined;

  constructor(options: WatchdogOptions) {
    this.#options = options;
  }

  /** A command was sent. Cheap if it is looking already. */
  watch(): void {
    const { clock, timeoutMs, pollMs } = this.#options;
    this.#deadlines ??= clock.after(timeoutMs / 2, () => {
      this.#deadlines = undefined;
      this.#options.lookForDeadlines();
      this.#goOn();
    });
    if (pollMs !== undefined)
      this.#completions ??= clock.after(pollMs, () => {
        this.#completions = undefined;
        this.#options.lookForCompletions();
        this.#goOn();
      });
  }

  /** Commands have ended: stops looking if they were the last. */
  rest(): void {
    if (this.#deadlines && !this.#options.busy()) this.stop();
  }

  stop(): void {
    this.#deadlines?.cancel();
    this.#completions?.cancel();
    this.#deadlines = undefined;
    this.#completions = undefined;
  }

  #goOn(): void {
    if (this.#options.busy()) this.watch();
    else this.stop();
  }
}
