/**
 * Fault events: what devices and a unit did wrong, kept in a queue until a program reads it. Never an exception.
 *
 * Promises: bounded; when it is full the newest are dropped and counted.
 */

/** Events that are kept until somebody reads them. */
export const FAULT_EVENT_LIMIT = 1024;

/** A bounded queue of one unit's events. */
export class FaultEvents<Fault> {
  readonly #events: Fault[] = [];
  /** Events dropped because nobody read. */
  dropped = 0;

  /** Adds an event, or counts it as dropped if {@link FAULT_EVENT_LIMIT} wait already. */
  push(event: Fault): void {
    if (this.#events.length < FAULT_EVENT_LIMIT) this.#events.push(event);
    else this.dropped++;
  }

  /** Events that wait to be read. */
  get length(): number {
    return this.#events.length;
  }

  /** Everything so far, oldest first; the queue is empty then. */
  drain(): Fault[] {
    return this.#events.splice(0);
  }
}
