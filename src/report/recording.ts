/**
 * A whole trace in memory, as columns: its mappings, and what the rules found. For pictures and tables.
 *
 * Idea: one pass over the trace; the analysis shows every mapping once, and it is copied into columns that grow.
 * Not for: events, which are handed on one by one (`visit`) and not kept.
 */

import {
  type CheckResult,
  checkTrace,
  type EventVisitor,
  type KernelLog,
  KINDS,
  NO_DEVICE,
  REACHED,
  RequestColumns,
  Requests,
  type Selection,
} from "../analysis/index.ts";
import { DIRECTIONS } from "../base/index.ts";
import type { Trace } from "../trace/index.ts";

export { KINDS, NO_DEVICE, REACHED };

/** Every mapping of a trace, in the order of their ends, live ones last. */
export type Mappings = RequestColumns;

/** What the events call the directions, by the kernel's number. */
const WORDS: readonly string[] = [...DIRECTIONS, "none"];
export const directionWord = (direction: number): string | undefined => WORDS[direction];

/** A trace that was read whole. */
export interface Recording {
  /** What was read: its types, clock and remarks. */
  readonly trace: Trace;
  /** What the rules found. */
  readonly result: CheckResult;
  /** The same mappings, as columns and in the order of their beginning. */
  readonly mappings: Mappings;
  /** What was asked for as one, over several mappings. */
  readonly requests: Requests;
  /** Time of the first event, nanoseconds since the trace's time base; 0 for an empty trace. */
  readonly firstNs: number;
  /** Time of the last event, in the same way. */
  readonly lastNs: number;
  /** What was asked for, where that is not all. */
  readonly selection?: Selection;
}

/** Which part of a trace is kept, and who sees its events. */
export interface RecordingOptions {
  /** Sees every event, before it is judged. */
  readonly visit?: EventVisitor;
  /** Mappings and findings of these only. */
  readonly selection?: Selection;
  /** The kernel's log of the same machine. */
  readonly kernelLog?: KernelLog;
  /** Called with the number of events so far, once a batch. */
  readonly progress?: (events: number) => void;
}

/**
 * Reads all of `trace`.
 *
 * @throws DmaError ERR_DMA_TRACE_DAMAGED (EINVAL), unless the trace was opened for best effort
 */
export async function readRecording(trace: Trace, options: RecordingOptions = {}): Promise<Recording> {
  const { visit, selection, kernelLog, progress } = options;
  const mappings = new RequestColumns();
  let firstNs = Number.POSITIVE_INFINITY;
  let lastNs = 0;
  const result = await checkTrace(trace, {
    sinks: [mappings],
    ...(selection && { selection }),
    ...(kernelLog && { kernelLog }),
    ...(progress && { progress }),
    visit(batch, row) {
      const time = batch.timeNs[row]!;
      if (time < firstNs) firstNs = time;
      if (time > lastNs) lastNs = time;
      visit?.(batch, row);
    },
  });
  let requests: Requests | undefined; // not all who look at mappings need their order
  return {
    trace,
    result,
    mappings,
    get requests() {
      requests ??= new Requests(mappings, result);
      return requests;
    },
    firstNs: Number.isFinite(firstNs) ? firstNs : 0,
    lastNs,
    ...(selection && { selection }),
  };
}
