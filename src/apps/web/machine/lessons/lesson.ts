/** What a lesson is: a program that stops to be looked at, and ways to break it. */

/** A change of a program that breaks a promise, to see what becomes of it. */
interface Breakage {
  /** What is broken. */
  readonly title: string;
  /** What to watch for. */
  readonly sentence: string;
  /** Text that the program has once, and what stands there when it is broken. */
  readonly find: string;
  readonly put: string;
}

/** One lesson. A later one builds on those before it. */
export interface Lesson {
  /** In the URL. */
  readonly name: string;
  readonly title: string;
  /** What it is about, in a sentence or two. */
  readonly about: string;
  readonly program: string;
  readonly breakages: readonly Breakage[];
}

/** The program of `lesson`, broken in the way of this number; whole if there is none. */
export function programOf({ program, breakages }: Lesson, broken?: number): string {
  const breakage = broken === undefined ? undefined : breakages[broken];
  return breakage ? program.replace(breakage.find, () => breakage.put) : program;
}
