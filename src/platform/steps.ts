/**
 * Steps: work that may be stopped between two of its parts, so that other work can come between.
 *
 * Idea: what a processor does in several moments (invalidate, then change a table; collect pages, then copy them) is a
 * generator that yields at each such moment. {@link finish} runs it at one go, which is what a program wants that is alone;
 * a seeded scheduler holds several and picks the next, which is how races are found and repeated.
 * Promises: without a scheduler the result is the same as of a plain function. Not for: time (see clock.ts).
 */
import { DmaError } from "../base/index.ts";

/** Where work has stopped: the name of the moment, or `waiting` when it cannot go on before other work has. */
export type Point = string;

/** Work in steps, with its result at the end. */
export type Steps<T> = Generator<Point, T, void>;

/** The point at which work stops that needs something of other work: a lock, the end of an invalidation. */
export const WAITING: Point = "waiting";

/**
 * Runs all steps at one go.
 *
 * @throws DmaError ERR_DMA_WOULD_WAIT (EAGAIN) if they wait for other work, which then cannot go on; and what the work throws
 */
export function finish<T>(steps: Steps<T>): T {
  for (;;) {
    const { done, value } = steps.next();
    if (done) return value;
    if (value === WAITING) {
      steps.return(undefined as T);
      throw wouldWait();
    }
  }
}

const wouldWait = (): DmaError =>
  new DmaError(
    "ERR_DMA_WOULD_WAIT",
    "EAGAIN",
    "this waits for other work that stopped between two of its steps: let a scheduler run both",
  );
