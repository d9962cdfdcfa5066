/**
 * How a golden file is judged.
 *
 * A golden file holds answers that the real kernel gave (test/golden/README.md). A judge replays its operations on
 * dmalink and compares every argument and result. One judge per kind; `runner.ts` picks it by the file's first line.
 */

/** The first line of a golden file. */
export interface Header {
  readonly kind: string;
  readonly source: string;
  readonly what: string;
  readonly [parameter: string]: unknown;
}

/** Any later line: one operation or one case, with the kernel's answer. */
export type Line = Readonly<Record<string, unknown>>;

export interface Verdict {
  /** Lines judged, and lines whose answer was equal (or better by a named rule). */
  readonly operations: number;
  readonly passed: number;
  /** The first line that differs: its number in the file (the header is 1), and what was expected and found. */
  readonly difference?: { readonly line: number; readonly message: string };
  /** Named rules by which a better answer than the kernel's was accepted, and how often. */
  readonly rules: Readonly<Record<string, number>>;
  /** Lines that were not judged, by the reason. */
  readonly notJudged: Readonly<Record<string, number>>;
}

/** Replays a file. Throws {@link NotJudged} for a file of which it can judge no line. */
export type Judge = (header: Header, lines: readonly Line[]) => Verdict | Promise<Verdict>;

/**
 * What a judge throws when it meets something that it does not know: the message names it. The line, or the file, is
 * pending then, for all to see; it has neither passed nor failed.
 */
export class NotJudged extends Error {}

/** What differs on one line. */
export class Differences {
  #found: string[] = [];

  /** Compares one answer with the file's. Both are what JSON can say. */
  same(what: string, expected: unknown, found: unknown): void {
    const [want, have] = [JSON.stringify(expected), JSON.stringify(found)];
    if (want !== have) this.add(`${what}: expected ${want}, found ${have}`);
  }

  add(...differences: string[]): void {
    this.#found.push(...differences);
  }

  /** All since the last time. */
  take(): string[] {
    const found = this.#found;
    this.#found = [];
    return found;
  }
}

/** Collects a verdict line by line. */
export class Tally {
  #operations = 0;
  #passed = 0;
  #difference: Verdict["difference"];
  readonly #rules: Record<string, number> = {};
  readonly #notJudged: Record<string, number> = {};

  /** Judges one line: `differences` empty is a pass. */
  judge(line: number, differences: readonly string[]): void {
    this.#operations++;
    if (differences.length === 0) this.#passed++;
    else this.#difference ??= { line, message: differences.join("; ") };
  }

  /** A named rule accepted a better answer than the kernel's. */
  rule(name: string): void {
    this.#rules[name] = (this.#rules[name] ?? 0) + 1;
  }

  /** Lines that are not judged. */
  pending(reason: string, lines = 1): void {
    if (lines > 0) this.#notJudged[reason] = (this.#notJudged[reason] ?? 0) + lines;
  }

  verdict(): Verdict {
    return {
      operations: this.#operations,
      passed: this.#passed,
      ...(this.#difference && { difference: this.#difference }),
      rules: this.#rules,
      notJudged: this.#notJudged,
    };
  }
}

/**
 * Judges line after line: `judge` gives what differs on one. What it throws is a difference too, except {@link NotJudged},
 * which leaves the line out; and all that follow, where those build on it (`cumulative`).
 */
export function judgeLines(
  lines: readonly Line[],
  cumulative: boolean | ((line: Line) => boolean),
  judge: (line: Line, index: number, tally: Tally) => readonly string[],
): Verdict {
  const tally = new Tally();
  const buildOn = typeof cumulative === "function" ? cumulative : () => cumulative;
  for (const [index, line] of lines.entries()) {
    try {
      tally.judge(index + 2, judge(line, index, tally));
    } catch (error) {
      if (!(error instanceof NotJudged)) tally.judge(index + 2, [`threw ${whatWasThrown(error)}`]);
      else {
        tally.pending(error.message);
        if (!buildOn(line)) continue;
        tally.pending(`after: ${error.message}`, lines.length - index - 1);
        break;
      }
    }
  }
  return tally.verdict();
}

const whatWasThrown = (error: unknown): string =>
  error instanceof Error ? (error.stack ?? error.message).split("\n").slice(0, 4).join(" ") : String(error);

/** What `by` has for the name that a file gives; NotJudged, saying `what` it is the name of, if there is none. */
export function known<Value>(what: string, by: Readonly<Record<string, Value>>, name: unknown): Value {
  if (typeof name !== "string" || !Object.hasOwn(by, name))
    throw new NotJudged(`${what} ${JSON.stringify(name)} is not known to the judge`);
  return by[name]!;
}
