/**
 * Work in steps of several threads at once, one step at a time, in an order that chance picks.
 *
 * Promises: the same chance, the same order. Who waits is left alone until another has moved; if all wait, that is a deadlock, and said so.
 */
import type { Random } from "../../base/index.ts";
import { type Steps, WAITING } from "../../platform/index.ts";
import { Broken } from "../scenario.ts";

/** A thread's work. */
export interface Thread {
  readonly name: string;
  readonly steps: Steps<unknown>;
  /** Serves the others: it is stopped when they have ended. */
  readonly isService?: boolean;
}

/** Runs all to their ends; `look` comes after each step. */
export function together(random: Random, threads: readonly Thread[], look: () => void): void {
  let going = [...threads];
  let waiting = new Set<Thread>();
  while (going.some(({ isService }) => !isService)) {
    const ready = going.filter((thread) => !waiting.has(thread));
    if (ready.length === 0)
      throw new Broken("crash", `all wait for each other: ${going.map(({ name }) => name).join(", ")}`);
    const thread = random.pick(ready);
    const { done, value } = thread.steps.next();
    if (!done && value === WAITING) waiting.add(thread);
    else waiting = new Set();
    if (done) going = going.filter((each) => each !== thread);
    look();
  }
  for (const { steps } of going) steps.return(undefined);
}
