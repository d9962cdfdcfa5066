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
import { inputChunks, readExactly, type TraceInput } from "./input.ts";
import { KernelLogTrace, LOG_HEAD_BYTES, looksLikeKernelLog } from "./kernel-log/index.ts";
import { TextTrace } from "./text-trace.ts";

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

const isDat = (bytes: Uint8Array): boolean => DAT_MAGIC.every((byte, i) => bytes[i] === byte);

function isSource(input: unknown): boolean {
  if (typeof input !== "object" || input === null) return false;
  const { stream, size, read } = input as { stream?: AsyncIterable<Uint8Array>; size?: unknown; read?: unknown };
  if (stream !== undefined) return typeof stream?.[Symbol.asyncIterator] === "function";
  return typeof read === "function" && Number.isSafeInteger(size) && (size as number) >= 0;
}

/**
 * Opens a recorded trace: trace.dat of versions 6 and 7 (from a file), `trace-cmd report`, the tracefs `trace` or
 * `trace_pipe` file, `perf script` output, or a kernel's log (from a file or a stream). Gzip is the caller's to unwrap. Reads the metadata
 * and the first events only. Errors: DmaError, see above.
 */
export async function openTrace(input: TraceInput, options: OpenOptions = {}): Promise<Trace> {
  const { bestEffort = false, codecs = DEFAULT_CODECS } = options;
  const batchSize = Math.min(LARGEST_BATCH, Math.max(1, Math.trunc(options.batchSize ?? BATCH_SIZE)));
  if (!isSource(input)) throw notASource(input);
  if ("stream" in input) {
    const chunks = input.stream[Symbol.asyncIterator]();
    const first: Uint8Array[] = [];
    let length = 0;
    while (length < LOG_HEAD_BYTES) {
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
    if (isDat(head) || length === 0) {
      await chunks.return?.();
      throw length === 0 ? notATrace("an empty stream") : needsFile(input.name);
    }
    const rest = async function* (): AsyncGenerator<Uint8Array> {
      try {
        yield head;
        for (let next = await chunks.next(); !next.done; next = await chunks.next()) yield next.value;
      } finally {
        await chunks.return?.();
      }
    };
    return openText(head, rest(), bestEffort, batchSize);
  }
  if (input.size === 0) throw notATrace("an empty file");
  const head = (await readExactly(input, 0, Math.min(LOG_HEAD_BYTES, input.size), "the first bytes")).slice();
  if (isDat(head)) return DatTrace.open(input, codecs, bestEffort, batchSize);
  return openText(head, inputChunks(input), bestEffort, batchSize);
}

/** A kernel's log is known by its first lines; everything else that is text has to be a trace. */
async function openText(
  head: Uint8Array,
  chunks: AsyncIterable<Uint8Array>,
  bestEffort: boolean,
  batchSize: number,
): Promise<Trace> {
  if (looksLikeKernelLog(head) !== "no") return new KernelLogTrace(chunks, batchSize);
  return TextTrace.open(chunks, bestEffort, batchSize);
}
