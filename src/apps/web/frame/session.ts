/**
 * What is open in the page: the trace, its worker, and how far the reading is; as signals that views follow.
 *
 * Promises: opening another trace ends the worker of the one before, and nothing of it is shown any more.
 */
import { type ReadonlySignal, signal } from "@preact/signals";
import type { CheckAnswer, Overview } from "../trace/answers.ts";
import type { OpenedFiles } from "../trace/open-trace.ts";
import type { TraceCalls } from "../trace/worker.ts";
import { WorkerCalls } from "./calls.ts";

/** A trace that is open. */
export interface Session {
  readonly files: OpenedFiles;
  readonly worker: WorkerCalls<TraceCalls>;
  readonly overview: Overview;
  /** `undefined`: it is still being judged. */
  readonly checked?: CheckAnswer;
}

const session = signal<Session | undefined>(undefined);
const work = signal<{ readonly what: string; readonly share: number | undefined } | undefined>(undefined);
const trouble = signal<string | undefined>(undefined);
const offered = signal<readonly File[]>([]);

/** The open trace. */
export const opened: ReadonlySignal<Session | undefined> = session;
/** What is being done; `undefined`: nothing. */
export const progress: ReadonlySignal<{ readonly what: string; readonly share: number | undefined } | undefined> = work;
/** What went wrong with the last file. */
export const failure: ReadonlySignal<string | undefined> = trouble;
/** Files that were given, of which one is open. */
export const files: ReadonlySignal<readonly File[]> = offered;

let current: WorkerCalls<TraceCalls> | undefined;

/** Opens what was dropped, chosen or served: the first trace of `given`, with a kernel log beside it if there is one. */
export async function openFiles(given: readonly File[]): Promise<void> {
  const [first, ...rest] = given;
  if (!first) return;
  offered.value = given;
  const isLog = ({ name }: File): boolean => /(dmesg|kern|console|\.log)/i.test(name) && !/trace/i.test(name);
  const trace = given.find((file) => !isLog(file)) ?? first;
  const log = rest.length > 0 ? given.find((file) => file !== trace && isLog(file)) : undefined;
  await openTrace({ trace, ...(log && { kernelLog: log }) });
}

/** Reads a trace anew that has grown, in a worker of its own: what is shown stays until the longer one was judged. */
export async function openLonger(trace: File): Promise<void> {
  const before = session.value;
  if (!before?.checked || work.value) return;
  const worker = new WorkerCalls<TraceCalls>("trace");
  try {
    const chosen = { ...before.files, trace };
    const overview = await worker.call("open", chosen);
    const checked = await worker.call("check", undefined);
    if (session.value !== before) {
      worker.end(); // another trace was opened meanwhile
      return;
    }
    current = worker;
    session.value = { files: chosen, worker, overview, checked };
    before.worker.end();
  } catch {
    worker.end(); // cut in the middle of what is being written: the next look has more
  }
}

/** Opens one trace. */
export async function openTrace(chosen: OpenedFiles): Promise<void> {
  current?.end();
  const worker = new WorkerCalls<TraceCalls>("trace");
  current = worker;
  session.value = undefined;
  trouble.value = undefined;
  work.value = { what: `reading ${chosen.trace.name}`, share: undefined };
  const tell = (what: string, share?: number): void => {
    if (current === worker) work.value = { what, share };
  };
  try {
    const overview = await worker.call("open", chosen, tell);
    if (current !== worker) return;
    session.value = { files: chosen, worker, overview };
    document.title = `${overview.name} · dmalink`;
    const checked = await worker.call("check", undefined, tell);
    if (current === worker) session.value = { files: chosen, worker, overview, checked };
  } catch (error) {
    if (current === worker) trouble.value = (error as Error).message;
  } finally {
    if (current === worker) work.value = undefined;
  }
}
