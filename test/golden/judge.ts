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
}

export type Judge = (header: Header, lines: readonly Line[]) => Verdict | Promise<Verdict>;

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

  verdict(): Verdict {
    const { length } = Object.keys(this.#rules);
    return {
      operations: this.#operations,
      passed: this.#passed,
      ...(this.#difference && { difference: this.#difference }),
      rules: length ? this.#rules : {},
    };
  }
}
