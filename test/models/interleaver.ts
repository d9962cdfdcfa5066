/**
 * Runs work in steps, one step of one piece at a time, in an order that a seed picks.
 *
 * A piece that waits is left alone until another has moved; if all wait, that is a deadlock and said so. After every step `check` runs,
 * so a broken promise is found at the moment it breaks. Same seed, same order.
 */
import type { Random } from "../../src/base/index.ts";
import { type Steps, WAITING } from "../../src/platform/index.ts";

export interface Piece {
  readonly name: string;
  readonly steps: Steps<unknown>;
  /** Errors that are an answer, and end the piece. */
  readonly mayThrow?: (error: unknown) => boolean;
}

/** The moments in order, for the story of a failure. */
export function interleave(random: Random, pieces: readonly Piece[], check: () => void): string[] {
  const story: string[] = [];
  let going = [...pieces];
  let waiting = new Set<Piece>();
  while (going.length > 0) {
    const ready = going.filter((piece) => !waiting.has(piece));
    if (ready.length === 0) throw new Error(`all wait for each other: ${going.map(({ name }) => name).join(", ")}`);
    const piece = random.pick(ready);
    let done: boolean | undefined;
    try {
      const step = piece.steps.next();
      done = step.done;
      if (!done && step.value === WAITING) waiting.add(piece);
      else waiting = new Set();
      story.push(`${piece.name}: ${done ? "done" : (step.value as string)}`);
    } catch (error) {
      if (!piece.mayThrow?.(error)) throw told(error, piece.name, story);
      done = true;
      waiting = new Set();
      story.push(`${piece.name}: refused`);
    }
    if (done) going = going.filter((each) => each !== piece);
    try {
      check();
    } catch (error) {
      throw told(error, "after that", story);
    }
  }
  return story;
}

/** The error with the last moments before it. */
function told(error: unknown, where: string, story: readonly string[]): Error {
  const last = story.slice(-12).map((moment) => `\n  ${moment}`);
  return new Error(`${(error as Error).message}${last.join("")}\n  ${where}: this error`, { cause: error });
}

/**
 * Runs `race` with each seed. A seed that fails is run again: the error says whether it ends the same way, and how to run it alone.
 */
export function everyOrder(seeds: readonly number[], race: (seed: number) => unknown): void {
  for (const seed of seeds) {
    const error = errorOf(race, seed);
    if (error === undefined) continue;
    const again = errorOf(race, seed);
    const isSame = again?.message === error.message;
    throw new Error(
      `seed ${seed} (DMALINK_ORDER=${seed} runs it alone): ${error.message}` +
        (isSame ? "" : `\nand when it was run again: ${again?.message ?? "no error"}`),
      { cause: error },
    );
  }
}

function errorOf(race: (seed: number) => unknown, seed: number): Error | undefined {
  try {
    race(seed);
    return undefined;
  } catch (error) {
    return error as Error;
  }
}
