/**
 * The one door to recorded traces: what kind of file it is, and the reader for it.
 *
 * Idea: the first bytes decide. Everything behind gives the same columns (events.ts).
 * Errors: ERR_DMA_TRACE_SOURCE (no such input), ERR_DMA_TRACE_FORMAT (not a trace), ERR_DMA_TRACE_VERSION, ERR_DMA_TRACE_DAMAGED, ERR_DMA_TRACE_NEEDS_FILE.
 */
import { type Codecs, DEFAULT_CODECS } from "./codecs.ts";
import { DAT_MAGIC } from "./dat-file.ts";
import { DatTrace } from "./dat-trace.ts";
import { needsFile, notASource, notATrace } from "./errors.ts";
import type { Trace } from "./events.ts";
import { type FileInput, inputChunks, readExactly, type TraceInput } from "./input.ts";
import { KernelLogTrace, LOG_HEAD_BYTES, looksLikeKernelLog } from "./kernel-log/index.ts";
import { isPerfData } from "./perf/perf-file.ts";
import { PerfTrace } from "./perf/perf-trace.ts";
import { recognise } from "./recognise.ts";
import { openText } from "./text/open-text.ts";

/** How a trace is read. */
export interface OpenOptions {
  /** Deliver what can be read, and say in `Trace.damage` where it stopped, rather than throw. */
  readonly bestEffort?: boolean;
  /** Faster decompression than what every runtime has. */
  readonly codecs?: Codecs;
  /** Events per batch, 1 to 1,048,576. */
  readonly batchSize?: number;
}

/** A batch that stays in the second-level cache. */
const BATCH_SIZE = 4096;
const LARGEST_BATCH = 1 << 20;
/** What a file is, its first bytes say. */
const DECIDING_BYTES = LOG_HEAD_BYTES;

const isDat = (bytes: Uint8Array): boolean => DAT_MAGIC.every((byte, i) => bytes[i] === byte);

function isSource(input: unknown): boolean {
  if (typeof input !== "object" || input === null) return false;
  const { stream, size, read } = input as { stream?: AsyncIterable<Uint8Array>; size?: unknown; read?: unknown };
  if (stream !== undefined) return typeof stream?.[Symbol.asyncIterator] === "function";
  return typeof read === "function" && Number.isSafeInteger(size) && (size as number) >= 0;
}

/**
 * Opens a recorded trace: trace.dat of versions 6 and 7 and perf.data (from a file), `trace-cmd report`, the tracefs `trace`
 * or `trace_pipe` file, `perf script` output, or a kernel's log (from a file or a stream), as UTF-8 or UTF-16, or in a systrace page. Gzip is
 * the caller's to unwrap. Reads the metadata and the first events only. Errors: DmaError, see above.
 */
export async function openTrace(input: TraceInput, options: OpenOptions = {}): Promise<Trace> {
  const { bestEffort = false, codecs = DEFAULT_CODECS } = options;
  const batchSize = Math.min(LARGEST_BATCH, Math.max(1, Math.trunc(options.batchSize ?? BATCH_SIZE)));
  if (!isSource(input)) throw notASource(input);
  if ("stream" in input) return openStream(input.name, input.stream, bestEffort, batchSize);
  if (input.size === 0) throw notATrace("an empty file");
  const head = await readExactly(input, 0, Math.min(DECIDING_BYTES, input.size), "the first bytes");
  if (isDat(head)) return DatTrace.open(input, codecs, bestEffort, batchSize);
  if (isPerfData(head)) return PerfTrace.open(input, bestEffort, batchSize);
  return openAsText(input, head, bestEffort, batchSize);
}

async function openAsText(input: FileInput, head: Uint8Array, bestEffort: boolean, batchSize: number): Promise<Trace> {
  const kept = head.slice();
  if (looksLikeKernelLog(kept) !== "no") return new KernelLogTrace(inputChunks(input), batchSize);
  const { trace, beginning } = await openText(inputChunks(input), bestEffort, batchSize);
  if (!trace) throw notKnown(kept, beginning, input.name);
  return trace;
}

async function openStream(
  name: string,
  stream: AsyncIterable<Uint8Array>,
  bestEffort: boolean,
  batchSize: number,
): Promise<Trace> {
  const chunks = stream[Symbol.asyncIterator]();
  const first: Uint8Array[] = [];
  let length = 0;
  while (length < DECIDING_BYTES) {
    const next = await chunks.next();
    if (next.done) break;
    first.push(next.value.slice());
    length += next.value.length;
  }
  const head = new Uint8Array(length);
  let at = 0;
  for (const part of first) {
    head.set(part, at);
    at += part.length;
  }
  if (isDat(head) || isPerfData(head) || length === 0) {
    await chunks.return?.();
    throw length === 0 ? notATrace("an empty stream") : needsFile(name, isDat(head) ? "trace.dat" : "perf.data");
  }
  const rest = async function* (): AsyncGenerator<Uint8Array> {
    try {
      yield head;
      for (let next = await chunks.next(); !next.done; next = await chunks.next()) yield next.value;
    } finally {
      await chunks.return?.();
    }
  };
  if (looksLikeKernelLog(head) !== "no") return new KernelLogTrace(rest(), batchSize);
  const { trace, beginning } = await openText(rest(), bestEffort, batchSize);
  if (!trace) throw notKnown(head, beginning, name);
  return trace;
}

/** By the first bytes as they are; where they are text, by what the reader made of them. */
function notKnown(head: Uint8Array, beginning: Uint8Array, name: string): Error {
  const raw = recognise(head.subarray(0, DECIDING_BYTES), name);
  const isPage = raw.what.includes("HTML");
  const { what, next } = isPage || beginning.length === 0 ? raw : recognise(beginning, name, raw);
  return notATrace(what, next);
}
