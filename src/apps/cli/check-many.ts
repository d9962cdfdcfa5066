/**
 * `dmalink check` of several traces: worker threads, progress, one summary.
 *
 * Idea: a worker takes one trace after the other, so that memory is that of as many traces as there are workers, not of
 * all. The worker runs this very file. What comes back are findings, not events.
 */
import { availableParallelism } from "node:os";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import { checkJson, checkSarif, RULES } from "../../analysis/index.ts";
import { DmaError } from "../../base/index.ts";
import {
  type CheckCommandOptions,
  type CheckSettings,
  checkFile,
  exitCodeOf,
  refuseUnknownDevices,
  sarifOf,
  writeJson,
} from "./check.ts";
import { type CheckedTrace, checkText, headline, isEmpty, NOTHING } from "./check-text.ts";
import { progressLine } from "./progress.ts";
import { count, plural, textTable } from "./table.ts";
import { print, say } from "./terminal.ts";

/** What a worker is asked, and what it answers. */
interface Task {
  readonly index: number;
  readonly path: string;
}
type Answer =
  | { readonly index: number; readonly checked: CheckedTrace }
  | { readonly index: number; readonly failure: string };

/** Marks the threads that this file starts. */
const WORKER_ROLE = "dmalink check";

/** Checks all of `paths`, in any order, and prints them in theirs; the exit code is the worst one. */
export async function checkMany(paths: readonly string[], options: CheckCommandOptions): Promise<number> {
  const answers = await inWorkers(paths, options);
  const checked = answers.flatMap((answer) => ("checked" in answer ? [answer.checked] : []));
  const failures = answers.flatMap((answer) =>
    "failure" in answer ? [{ file: paths[answer.index]!, message: answer.failure }] : [],
  );
  refuseUnknownDevices(options.devices, checked);
  const summary = total(checked);
  if (options.sarif) writeJson(checkSarif(checked.map(sarifOf), options.version, failures));
  else if (options.json)
    writeJson({
      schema: "dmalink.check-set/1",
      summary,
      traces: checked.length,
      unread: failures.map(({ message }) => message),
      checks: checked.map((one) => checkJson(one.file, one, one.result)),
    });
  else print(manyText(paths, answers, summary));
  for (const { message } of failures) say(`dmalink: ${message}\n`);
  if (failures.length > 0) return 2;
  return Math.max(0, ...checked.map(exitCodeOf));
}

function total(checked: readonly CheckedTrace[]): Record<string, number> {
  const summary: Record<string, number> = {};
  for (const { name } of RULES) {
    const sum = checked.reduce((all, { result }) => all + (result.summary[name] ?? 0), 0);
    if (sum > 0) summary[name] = sum;
  }
  return summary;
}

function manyText(
  paths: readonly string[],
  answers: readonly Answer[],
  summary: Readonly<Record<string, number>>,
): string {
  const checked = answers.flatMap((answer) => ("checked" in answer ? [answer.checked] : []));
  const events = checked.reduce((sum, { result }) => sum + result.eventTotal, 0);
  const all = checked.flatMap(({ result }) => result.findings);
  const of = (one: CheckedTrace, severity: string): number =>
    one.result.findings.filter((finding) => finding.severity === severity).length;
  const table = textTable(
    ["trace", "events", "errors", "warnings", "advice"],
    answers.map((answer) => {
      const path = paths[answer.index]!;
      const name = path.length > 40 ? `...${path.slice(-37)}` : path;
      if ("failure" in answer) return [name, "not read", "-", "-", "-"];
      const { checked: one } = answer;
      const severities = ["error", "warning", "advice"].map((severity) => count(of(one, severity)));
      const marks = [...(one.damage ? ["damaged"] : []), ...(isEmpty(one.result) ? ["no mapping"] : [])];
      return [marks.length > 0 ? `${name} (${marks.join(", ")})` : name, count(one.result.eventTotal), ...severities];
    }),
  );
  const [unread, damaged] = [answers.length - checked.length, checked.filter(({ damage }) => damage).length];
  const lacks = [
    ...(unread > 0 ? [`${count(unread)} not read`] : []),
    ...(damaged > 0 ? [`${count(damaged)} damaged`] : []),
  ];
  const what = `${plural(answers.length, "trace")}${lacks.length > 0 ? ` (${lacks.join(", ")})` : ""}`;
  const lines = [
    checked.length === 0
      ? `${what}: nothing was judged`
      : `${what}, ${plural(events, "event")}: ${checked.every(({ result }) => isEmpty(result)) ? NOTHING : headline(all, summary)}`,
    "",
    table,
    "",
  ];
  const isWrong = ({ result }: CheckedTrace): boolean => result.findings.some(({ severity }) => severity !== "advice");
  const advised = checked.find((one) => !isWrong(one) && one.result.findings.length > 0);
  if (advised) lines.push(`Advice alone is told by the check of one trace: dmalink check ${advised.file}`, "");
  const wrong = checked.filter(isWrong);
  return `${lines.join("\n")}\n${wrong.map((one) => `${checkText(one)}\n`).join("")}`.trimEnd().concat("\n");
}

/** Answers in the order of `paths`. */
function inWorkers(paths: readonly string[], options: CheckCommandOptions): Promise<Answer[]> {
  const { rules, devices, bestEffort, dmaDump, snapshot, root } = options;
  const settings: CheckSettings = {
    ...(rules && { rules }),
    ...(devices && { devices }),
    ...(bestEffort !== undefined && { bestEffort }),
    ...(dmaDump !== undefined && { dmaDump }),
    ...(snapshot !== undefined && { snapshot }),
    ...(root !== undefined && { root }),
  };
  const jobs = Math.max(1, Math.min(options.jobs ?? availableParallelism(), paths.length));
  const progress = progressLine();
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
        progress.say(`${bar(done / paths.length)} ${done} of ${plural(paths.length, "trace")}`);
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

const bar = (share: number): string => `[${"#".repeat(Math.round(share * 20)).padEnd(20)}]`;

/** The other end: a worker checks what it is given. */
function work(settings: CheckSettings): void {
  const port = parentPort!;
  port.on("message", async ({ index, path }: Task) => {
    try {
      port.postMessage({ index, checked: await checkFile(path, settings) } satisfies Answer);
    } catch (error) {
      if (!(error instanceof DmaError)) throw error;
      port.postMessage({ index, failure: error.message } satisfies Answer);
    }
  });
}

if (!isMainThread && (workerData as { role?: string } | null)?.role === WORKER_ROLE)
  work((workerData as { settings: CheckSettings }).settings);
