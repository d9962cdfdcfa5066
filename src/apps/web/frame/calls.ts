/**
 * Calls between the page and its workers: a worker serves functions, the page calls them by name and waits.
 *
 * Idea: one message a call and one an answer, with a number that joins them; what a call says in between is progress. Arrays of
 * bytes that an answer names are handed over, not copied. Promises: an error in the worker is an error of the call, in the words of
 * the stack; a worker that cannot start, or dies, fails all calls that wait.
 */
import { loadScript } from "./load.ts";

/** What a worker serves: functions of one plain value, by name. */
export type Served = Readonly<Record<string, (argument: never, tell: Tell) => unknown>>;

/** Tells the caller how far the work is: what is being done, and which share of it, 0 to 1, where that is known. */
export type Tell = (what: string, share?: number) => void;

interface Question {
  readonly id: number;
  readonly name: string;
  readonly argument: unknown;
}

type Answer =
  | { readonly id: number; readonly result: unknown }
  | { readonly id: number; readonly error: string; readonly code?: string | undefined }
  | { readonly id: number; readonly told: string; readonly share: number | undefined };

/** An answer some of whose arrays are handed over. */
class Handed {
  readonly value: unknown;
  readonly buffers: readonly ArrayBufferLike[];
  constructor(value: unknown, buffers: readonly ArrayBufferLike[]) {
    this.value = value;
    this.buffers = buffers;
  }
}

/** `value` as a worker's answer, whose `arrays` are handed over: the worker has them no more. */
export const handOver = <T>(value: T, arrays: readonly ArrayBufferView[]): T =>
  new Handed(
    value,
    arrays.map(({ buffer }) => buffer),
  ) as unknown as T;

/** Serves `functions` to the page that started this worker; calls are taken up as they come, and may overlap where one waits. */
export function serve(functions: Served): void {
  const post = self as unknown as { postMessage(message: Answer, transfer?: readonly unknown[]): void };
  self.addEventListener("message", async ({ data }: MessageEvent<Question>) => {
    const { id, name, argument } = data;
    try {
      const tell: Tell = (told, share) => post.postMessage({ id, told, share });
      const result = await functions[name]!(argument as never, tell);
      if (result instanceof Handed) post.postMessage({ id, result: result.value }, result.buffers);
      else post.postMessage({ id, result });
    } catch (error) {
      const { message, code } = error as Error & { code?: string };
      post.postMessage({ id, error: message, code });
    }
  });
}

/** An error of a call, in the worker's words. */
export class CallError extends Error {
  /** Of a DmaError. */
  readonly code: string | undefined;
  /** Of the worker's source, where it does not start or an error escaped; from 1 on. */
  readonly line: number | undefined;
  constructor(message: string, code: string | undefined, line?: number) {
    super(message);
    this.code = code;
    this.line = line;
  }
}

interface Waiting {
  done(result: unknown): void;
  fail(error: CallError): void;
  tell: Tell | undefined;
}

/** The page's end of a worker that serves `S`. */
export class WorkerCalls<S extends Served> {
  readonly #started: Promise<Worker>;
  readonly #waiting = new Map<number, Waiting>();
  #next = 0;
  #ended = false;

  /**
   * `name`: of a worker of the build (tools/page.ts): "trace", "machine".
   *
   * @param before source that runs in the worker before its own, on lines of its own
   */
  constructor(name: string, before = "") {
    this.#started = startWorker(name, before).then((worker) => {
      worker.addEventListener("message", ({ data }: MessageEvent<Answer>) => this.#answered(data));
      worker.addEventListener("error", (event) =>
        this.#failAll(event.message || `the worker ${name} does not start`, event.lineno || undefined),
      );
      if (this.#ended) worker.terminate();
      return worker;
    });
    this.#started.catch((error: Error) => this.#failAll(error.message));
  }

  /** Calls `name` with `argument`; `tell` hears how far it is. */
  call<N extends keyof S & string>(
    name: N,
    argument: Parameters<S[N]>[0],
    tell?: Tell,
  ): Promise<Awaited<ReturnType<S[N]>>> {
    const id = this.#next++;
    return new Promise((done, fail) => {
      if (this.#ended) {
        fail(new CallError("it was ended", undefined));
        return;
      }
      this.#waiting.set(id, { done: done as Waiting["done"], fail, tell });
      this.#started.then(
        (worker) => worker.postMessage({ id, name, argument } satisfies Question),
        () => undefined, // told by #failAll
      );
    });
  }

  /** Ends the worker at once; what waits fails. */
  end(): void {
    this.#ended = true;
    this.#started.then(
      (worker) => worker.terminate(),
      () => undefined,
    );
    this.#failAll("it was ended");
  }

  #answered(answer: Answer): void {
    const waiting = this.#waiting.get(answer.id);
    if (!waiting) return;
    if ("told" in answer) {
      waiting.tell?.(answer.told, answer.share);
      return;
    }
    this.#waiting.delete(answer.id);
    if ("error" in answer) waiting.fail(new CallError(answer.error, answer.code));
    else waiting.done(answer.result);
  }

  #failAll(message: string, line?: number): void {
    const all = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const { fail } of all) fail(new CallError(message, undefined, line));
  }
}

/** Sources of workers that were loaded, by name: a file of the build gives its own here (tools/page.ts). */
const shared = globalThis as { dmalinkWorkers?: Record<string, string> };
shared.dmalinkWorkers ??= {};
const sources = shared.dmalinkWorkers;

/**
 * Starts a worker of the build. A page that lies on a disk may load scripts, but start no worker from a file: so the file is
 * loaded as a script that gives its own source, and the worker starts from that. The same way everywhere.
 */
async function startWorker(name: string, before: string): Promise<Worker> {
  if (sources[name] === undefined) await loadScript(`worker-${name}.js`);
  const url = URL.createObjectURL(new Blob([before, sources[name] ?? ""], { type: "text/javascript" }));
  return new Worker(url, { name });
}
