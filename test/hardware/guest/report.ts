/** What the program in the guest found: one line a case, and all of them as JSON for whoever booted it. */
import { writeFileSync } from "node:fs";

export interface CaseResult {
  readonly name: string;
  readonly result: "passed" | "failed" | "skipped";
  /** Why it failed or was skipped. */
  readonly reason?: string;
  readonly ms: number;
}

/** Says no. */
export class Expectation extends Error {}

export function expect(holds: boolean, what: string): asserts holds {
  if (!holds) throw new Expectation(what);
}

export function equal(actual: unknown, wanted: unknown, what: string): void {
  const [has, needs] = [JSON.stringify(actual), JSON.stringify(wanted)];
  expect(has === needs, `${what}: ${has?.slice(0, 400)} instead of ${needs?.slice(0, 400)}`);
}

/** The error that `call` throws, or rejects with. */
export async function thrown(call: () => unknown): Promise<Error & { code?: string; errno?: string }> {
  try {
    await call();
  } catch (error) {
    return error as Error & { code?: string; errno?: string };
  }
  throw new Expectation("nothing was thrown");
}

export class Report {
  readonly results: CaseResult[] = [];
  readonly figures: Record<string, number | string> = {};
  readonly #file: string;

  constructor(file: string) {
    this.#file = file;
  }

  get failed(): boolean {
    return this.results.some(({ result }) => result === "failed");
  }

  async test(name: string, work: () => unknown): Promise<void> {
    const start = performance.now();
    let failure: Error | undefined;
    try {
      await work();
    } catch (error) {
      failure = error as Error;
    }
    const ms = Math.round(performance.now() - start);
    if (failure === undefined) this.#add({ name, result: "passed", ms });
    else
      this.#add({
        name,
        result: "failed",
        reason: failure instanceof Expectation ? failure.message : `${failure.stack}`,
        ms,
      });
  }

  skip(name: string, reason: string): void {
    this.#add({ name, result: "skipped", reason, ms: 0 });
  }

  figure(name: string, value: number | string): void {
    this.figures[name] = value;
    process.stdout.write(`  figure   ${name}: ${value}\n`);
    this.#write();
  }

  #add(result: CaseResult): void {
    this.results.push(result);
    const { name, reason, ms } = result;
    process.stdout.write(
      `  ${result.result.padEnd(8)} ${name} (${ms} ms)${reason === undefined ? "" : `: ${reason}`}\n`,
    );
    this.#write(); // after each: a guest that hangs tells at least what it had
  }

  #write(): void {
    const text = JSON.stringify({ results: this.results, figures: this.figures }, undefined, 1);
    writeFileSync(this.#file, text);
  }
}
