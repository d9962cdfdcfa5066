/** What can be wrong with a trace file. Each error names the offset in the file and what was expected there. */
import { DmaError, given, hex } from "../base/index.ts";

/** Where a file stopped making sense. */
export interface TraceDamage {
  /** Bytes from the start of the (uncompressed) file. */
  readonly offset: number;
  /** What was expected there, and what was found. */
  readonly message: string;
}

/** The file is not a trace of any kind that is read here; `what` it is, and what to do with it. */
export const notATrace = (what: string, next?: string): DmaError =>
  new DmaError(
    "ERR_DMA_TRACE_FORMAT",
    "EINVAL",
    `not a trace: ${what}${next === undefined ? "" : `; ${next}`}. Read are trace.dat, perf.data, and the text of trace-cmd report, ` +
      "of tracefs (trace, trace_pipe) and of perf script",
    { offset: 0, what },
  );

/** A name, or something else, in place of where the bytes come from. */
export const notASource = (input: unknown): DmaError =>
  new DmaError(
    "ERR_DMA_TRACE_SOURCE",
    "EINVAL",
    `${given(input)} is no source of a trace: { name, size, read } for a file or { name, stream } for a pipe is needed; ` +
      "this library opens no files by itself",
    {},
  );

/** A trace whose events were delivered, or are being. */
export const readTwice = (): DmaError =>
  new DmaError(
    "ERR_DMA_TRACE_READ",
    "EINVAL",
    "the events of this trace were asked for before: a trace is read once; open it again with openTrace",
    {},
  );

/** A version of trace.dat that is not read here. */
export const unknownVersion = (version: string): DmaError =>
  new DmaError(
    "ERR_DMA_TRACE_VERSION",
    "EINVAL",
    `trace.dat version ${JSON.stringify(version)} at offset 10: versions 6 and 7 are read; convert it with trace-cmd convert --file-version 7`,
    { offset: 10, version },
  );

/** The file is cut or damaged at `offset`. */
export const damaged = (offset: number, message: string): DmaError =>
  new DmaError("ERR_DMA_TRACE_DAMAGED", "EINVAL", `damaged at offset ${offset} (${hex(offset)}): ${message}`, {
    offset,
    message,
  });

/** A trace.dat or perf.data came through a pipe, where it cannot be read: its parts are found by offset. */
export const needsFile = (name: string, kind: "trace.dat" | "perf.data"): DmaError =>
  new DmaError(
    "ERR_DMA_TRACE_NEEDS_FILE",
    "EINVAL",
    `${name} is a ${kind} on a stream: its parts are found by offset, give it as a file`,
    { offset: 0, name },
  );

/** A file of a latency tracer: it holds printed text, no recorded events. */
export const latencyTrace = (offset: number): DmaError =>
  new DmaError(
    "ERR_DMA_TRACE_FORMAT",
    "EINVAL",
    `latency trace at offset ${offset}: expected "flyrecord" event data; record it with trace-cmd record -e`,
    { offset },
  );
