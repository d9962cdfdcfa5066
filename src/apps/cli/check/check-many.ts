/**
 * `dmalink check` of several traces: worker threads, progress, one summary.
 *
 * Idea: a worker takes one trace after the other, so that memory is that of as many traces as there are workers, not of
 * all. The worker runs this very file. What comes back are findings, not events.
 */
import { availableParallelism } from "node:os";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import { DmaError, plural } from "../../../base/index.ts";
import {
  type CheckedTrace,
  type CheckOutcome,
  checkedOf,
  checkJson,
  checkSarif,
  checkSetText,
  unreadOf,
} from "../../../report/index.ts";
import { UsageError } from "../exit-errors.ts";
import { isNoTrace, leftOutWords, type NamedTrace } from "../files/folder.ts";
import { answerStyle, print, printJson, say, sayError } from "../terminal/print.ts";
import { progressLine } from "../terminal/progress.ts";
import { type CheckOptions, type CheckSettings, checkFile, exitCodeOf, refuseUnselected } from "./check-file.ts";

/** What a worker is asked, and what it answers. */
interface Task {
  readonly index: number;
  readonly path: string;
}
type Answer =
  | { readonly index: number; readonly checked: CheckedTrace }
  | { readonly index: number; readonly failure: string; readonly isNoTrace: boolean };

/** Marks the threads that this file starts. */
const WORKER_ROLE = "dmalink check";

/** Checks all of `traces`, in any order, and prints them in theirs; the exit code is the worst one. */
export async function checkMany(traces: readonly NamedTrace[], options: CheckOptions): Promise<number> {
  const answers = await inWorkers(
    traces.map(({ path }) => path),
    options,
  );
  const isLeftOut = (answer: Answer): boolean =>
    !("checked" in answer) && answer.isNoTrace && traces[answer.index]!.found;
  const leftOut = answers.filter(isLeftOut).map(({ index }) => traces[index]!.path);
  if (leftOut.length > 0) say(`${leftOutWords(leftOut)}\n`);
  const outcomes = answers
    .filter((answer) => !isLeftOut(answer))
    .map(
      (answer): CheckOutcome =>
        "checked" in answer ? answer.checked : { file: traces[answer.index]!.path, message: answer.failure },
    );
  if (outcomes.length === 0) throw new UsageError("no trace is in what was named");
  const [checked, unread] = [checkedOf(outcomes), unreadOf(outcomes)];
  refuseUnselected(options, checked);
  if (options.sarif) printJson(checkSarif(checked, options.version, unread));
  else if (options.json) printJson(checkJson(outcomes));
  else print(checkSetText(outcomes, answerStyle()));
  for (const { message } of unread) sayError(message);
  if (unread.length > 0) return 2;
  return Math.max(0, ...checked.map(exitCodeOf));
}

/** Answers in the order of `paths`. */
function inWorkers(paths: readonly string[], options: CheckOptions): Promise<Answer[]> {
  const { json: _json, sarif: _sarif, jobs: _jobs, version: _version, ...settings } = options;
  const jobs = Math.max(1, Math.min(options.jobs ?? availableParallelism(), paths.length));
  const progress = progressLine();
  progress.say("checking");
  const answers = new Array<Answer>(paths.length);
  let next = 0;
  let done = 0;
  return new Promise((resolve, reject) => {
    const workers: Worker[] = [];
    const give = (worker: Worker): void => {
      if (next < paths.length) worker.postMessage({ index: next, path: paths[next++]! } satisfies Task);
      else void worker.terminate();
    };
    for (let i = 0; i < jobs; i++) {
      const worker = start({ role: WORKER_ROLE, settings });
      workers.push(worker);
      worker.on("message", (answer: Answer) => {
        answers[answer.index] = answer;
        done++;
        progress.reached(done / paths.length, `${done} of ${plural(paths.length, "trace")}`);
        give(worker);
        if (done < paths.length) return;
        progress.done();
        resolve(answers);
      });
      worker.on("error", (error) => {
        progress.done();
        for (const one of workers) void one.terminate();
        reject(error);
      });
      give(worker);
    }
  });
}

/** From the sources, a worker needs the loader that the main thread was started with. */
function start(data: object): Worker {
  const { url } = import.meta;
  if (!url.endsWith(".ts")) return new Worker(new URL(url), { workerData: data });
  const loader = import.meta.resolve("tsx/esm/api");
  const code = `import(${JSON.stringify(loader)}).then(({ register }) => (register(), import(${JSON.stringify(url)})))`;
  return new Worker(code, { eval: true, workerData: data });
}

/** The other end: a worker checks what it is given. */
function work(settings: CheckSettings): void {
  const port = parentPort!;
  port.on("message", async ({ index, path }: Task) => {
    try {
      port.postMessage({ index, checked: await checkFile(path, settings) } satisfies Answer);
    } catch (error) {
      if (!(error instanceof DmaError)) throw error;
      port.postMessage({ index, failure: error.message, isNoTrace: isNoTrace(error) } satisfies Answer);
    }
  });
}

if (!isMainThread && (workerData as { role?: string } | null)?.role === WORKER_ROLE)
  work((workerData as { settings: CheckSettings }).settings);
