/** Opens a trace for a command, and names the file in whatever goes wrong with it. */
import { DmaError, hex, plural } from "../../../base/index.ts";
import { openTrace, type Trace } from "../../../trace/index.ts";
import { say } from "../terminal/print.ts";
import { type Progress, progressLine } from "../terminal/progress.ts";
import { NODE_CODECS } from "./codecs.ts";
import { type OpenInput, openInput } from "./input.ts";
import { memoryGuarded } from "./memory.ts";
import { type TimeWindow, windowed } from "./time-window.ts";

/** How a trace is read, and which part of it. */
export interface ReadOptions extends TimeWindow {
  readonly bestEffort?: boolean;
}

/** Runs `command` on the trace at `path` and closes everything, however it ends. */
export async function withTrace(
  path: string,
  options: ReadOptions,
  command: (trace: Trace, progress: Progress) => Promise<number>,
): Promise<number> {
  const { bestEffort = false } = options;
  const line = progressLine();
  line.say(`reading ${path}`);
  const progress = memoryGuarded(line, path);
  const listening = tellOnInterrupt(line);
  let source: OpenInput | undefined;
  try {
    source = await openInput(path, { bestEffort, progress });
    const trace = await openTrace(source.input, { bestEffort, codecs: NODE_CODECS });
    return await command(windowed(trace, options), progress);
  } catch (error) {
    if (!(error instanceof DmaError) || !error.code.startsWith("ERR_DMA_TRACE")) throw error;
    const hint =
      error.code === "ERR_DMA_TRACE_DAMAGED" && !bestEffort ? "; --best-effort reads what is before that" : "";
    throw new DmaError(error.code, error.errno, `${path}: ${error.message}${hint}`, error.details);
  } finally {
    progress.done();
    listening();
    await source?.close();
  }
}

/** An interrupt ends the program, and says what was reached; call the answer when there is nothing more to say. */
export function tellOnInterrupt(progress: Progress): () => void {
  const tell = (): never => {
    const reached = progress.said();
    progress.done();
    say(`interrupted while ${reached}\n`);
    process.exit(130);
  };
  process.prependListener("SIGINT", tell);
  return () => process.off("SIGINT", tell);
}

/** What was not understood of a trace, on stderr, by commands whose own answer does not say it. */
export function sayRemarks(path: string, trace: { readonly remarks: readonly { readonly message: string }[] }): void {
  for (const { message } of trace.remarks) say(`${path}: ${message}\n`);
}

/** What is said of a damaged trace, on stderr. */
export function sayDamage(path: string, trace: Pick<Trace, "damage">): void {
  if (!trace.damage) return;
  const { offset, message } = trace.damage;
  say(`${path}: damaged at offset ${offset} (${hex(offset)}): ${message}; what was read before that is reported\n`);
}

/** Batches of events after which their number is told: writing it in words takes longer than counting. */
const TOLD_EVERY = 32;

/** Counts events on the line of progress; the share of the file is told by who reads it. */
export function toldEvents(progress: Progress): (events: number) => void {
  let batches = 0;
  return (events) => {
    if (++batches % TOLD_EVERY === 0) progress.reached(undefined, plural(events, "event"));
  };
}
