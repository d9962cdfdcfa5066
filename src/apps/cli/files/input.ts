/**
 * Where a trace comes from: a file, one packed by gzip or zstd, or standard input.
 *
 * A trace.dat or perf.data is read at random places, so a compressed or piped one (standard input, a FIFO) is unpacked first: into memory while it is small,
 * else into a temporary file that is gone when the input is closed. Text is streamed, whatever its size.
 * Promises: a packed input is at most 200 times as long unpacked, and 64 MiB: a few hundred KiB can be made to
 * unpack to any time and disk space, and no recording packs so well.
 */
import { createReadStream, rmSync, statSync } from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";
import { constants, createGunzip } from "node:zlib";
import { bytes, DmaError } from "../../../base/index.ts";
import {
  type FileInput,
  fileInput,
  isPerfData,
  type TraceInput,
  unzstdStream,
  ZSTD_MAGIC,
} from "../../../trace/index.ts";
import type { Progress } from "../terminal/progress.ts";
import { STANDARD_INPUT } from "./standard-input.ts";
import { exitOnSignal, temporaryFolder, UndoOnExit } from "./undo-on-exit.ts";

export interface OpenInput {
  readonly input: TraceInput;
  close(): Promise<void>;
}

const MEMORY_LIMIT = 256 * 1024 * 1024;
/** Unpacked bytes that every packed input may have, and those for each packed byte. Traces pack to a tenth, at best to a fiftieth. */
const UNPACKED_ALWAYS = 64 * 1024 * 1024;
const MOST_UNPACKED_SHARE = 200;

/** How an input is opened. */
export interface InputOptions {
  /** What can be unpacked of a cut gzip is taken; `undefined`: the command has no such option. */
  readonly bestEffort?: boolean;
  /** Told what is read: which share of the file, or how many bytes of what has no end yet. */
  readonly progress?: Progress;
}

/**
 * Opens `path`, of whatever form.
 *
 * @throws DmaError ERR_DMA_INPUT (ENOENT, EIO …): no such file, not readable, or a gzip that is cut
 */
export async function openInput(path: string, options: InputOptions = {}): Promise<OpenInput> {
  const { progress } = options;
  const raw = path === STANDARD_INPUT ? process.stdin : createReadStream(path, { highWaterMark: 1 << 18 });
  const packed = { bytes: 0 };
  const chunks = counted(explain(raw, path), sizeOf(path), progress, packed)[Symbol.asyncIterator]();
  let head = await firstBytes(chunks, 12);
  let rest: AsyncIterator<Uint8Array> = chunks;
  const gzip = head.length >= 2 && head[0] === 0x1f && head[1] === 0x8b;
  if (gzip) {
    const unpacked = explain(
      unzip(chain(head, chunks), options.bestEffort ?? false),
      path,
      options.bestEffort !== undefined,
    );
    rest = bounded(unpacked, packed, path)[Symbol.asyncIterator]();
    head = await firstBytes(rest, 12);
  }
  const zstd = !gzip && ZSTD_MAGIC.every((byte, i) => head[i] === byte);
  if (zstd) {
    const unpacked = unzstdStream(chain(head, chunks), options.bestEffort ?? false);
    rest = bounded(unpacked, packed, path)[Symbol.asyncIterator]();
    head = await firstBytes(rest, 12);
  }
  const isDat = head.length >= 3 && head[0] === 0x17 && head[1] === 0x08 && head[2] === 0x44;
  if (!isDat && !isPerfData(head))
    return { input: { name: path, stream: chain(head, rest) }, close: async () => void raw.destroy() };
  if (!gzip && !zstd && path !== STANDARD_INPUT && statSync(path).isFile()) {
    raw.destroy();
    return openFile(path, path, progress);
  }
  progress?.say(`unpacking ${path}`);
  return spool(path, chain(head, rest), progress);
}

async function openFile(
  path: string,
  name: string,
  progress: Progress | undefined,
  remove?: () => void,
): Promise<OpenInput> {
  const file = await open(path, "r");
  const { size } = await file.stat();
  try {
    remove?.(); // an open file stays readable, and is gone however the program ends
  } catch {
    // Where an open file cannot be removed, it is when it is closed.
  }
  return {
    input: followed(fileInput(name, size, file), progress),
    close: async () => {
      await file.close();
      remove?.();
    },
  };
}

/** Unpacks a stream so that it can be read at any place. */
async function spool(
  name: string,
  stream: AsyncIterable<Uint8Array>,
  progress: Progress | undefined,
): Promise<OpenInput> {
  const parts: Uint8Array[] = [];
  let size = 0;
  const iterator = stream[Symbol.asyncIterator]();
  for (let next = await iterator.next(); !next.done; next = await iterator.next()) {
    parts.push(next.value);
    size += next.value.length;
    if (size > MEMORY_LIMIT) return spoolToFile(name, parts, iterator, progress);
  }
  const whole = new Uint8Array(size);
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  const input: FileInput = {
    name,
    size,
    async read(offset, length): Promise<Uint8Array> {
      await new Promise((done) => setImmediate(done)); // so that a signal is heard in between
      return whole.subarray(offset, offset + length);
    },
  };
  return { input: followed(input, progress), close: async () => {} };
}

async function spoolToFile(
  name: string,
  parts: Uint8Array[],
  rest: AsyncIterator<Uint8Array>,
  progress: Progress | undefined,
): Promise<OpenInput> {
  const undo = new UndoOnExit();
  const listening = exitOnSignal();
  try {
    const folder = temporaryFolder("dmalink-", undo);
    const path = join(folder, "trace.dat");
    const file = await open(path, "w");
    try {
      for (const part of parts) await file.write(part);
      for (let next = await rest.next(); !next.done; next = await rest.next()) await file.write(next.value);
    } finally {
      await file.close();
    }
    return await openFile(path, name, progress, () => rmSync(folder, { recursive: true, force: true }));
  } finally {
    undo.run();
    listening();
  }
}

/** Bytes of the file at `path`; `undefined` where that has no end that is known. */
function sizeOf(path: string): number | undefined {
  const found = path === STANDARD_INPUT ? undefined : statSync(path, { throwIfNoEntry: false });
  return found?.isFile() && found.size > 0 ? found.size : undefined;
}

/** The same bytes; `progress` is told how many there were. */
async function* counted(
  stream: AsyncIterable<Uint8Array>,
  size: number | undefined,
  progress: Progress | undefined,
  packed: { bytes: number },
): AsyncGenerator<Uint8Array> {
  let read = 0;
  for await (const chunk of stream) {
    read += chunk.length;
    packed.bytes = read;
    if (size === undefined) progress?.reached(undefined, bytes(read));
    else progress?.reached(read / size);
    yield chunk;
  }
}

/** The same bytes, as long as they are not too many for what they were packed in. */
async function* bounded(
  stream: AsyncIterable<Uint8Array>,
  packed: { readonly bytes: number },
  name: string,
): AsyncGenerator<Uint8Array> {
  let size = 0;
  for await (const chunk of stream) {
    size += chunk.length;
    if (size > UNPACKED_ALWAYS + MOST_UNPACKED_SHARE * packed.bytes)
      throw new DmaError(
        "ERR_DMA_INPUT",
        "EINVAL",
        `${name}: ${bytes(packed.bytes)} unpack to more than ${bytes(size)}, which no recording does. If it is one, unpack it first`,
        { name, packedBytes: packed.bytes },
      );
    yield chunk;
  }
}

/** The same file; `progress` is told how much of it was read. A part that is read again counts once more, which is little. */
function followed(input: FileInput, progress: Progress | undefined): FileInput {
  if (!progress) return input;
  progress.say(`reading ${input.name}`);
  let read = 0;
  return {
    name: input.name,
    size: input.size,
    async read(offset, length) {
      const part = await input.read(offset, length);
      read += part.length;
      progress.reached(read / Math.max(input.size, 1));
      return part;
    },
  };
}

async function* chain(head: Uint8Array, rest: AsyncIterator<Uint8Array>): AsyncGenerator<Uint8Array> {
  if (head.length > 0) yield head;
  for (let next = await rest.next(); !next.done; next = await rest.next()) yield next.value;
}

/** At least `wanted` bytes, if there are so many. */
async function firstBytes(chunks: AsyncIterator<Uint8Array>, wanted: number): Promise<Uint8Array> {
  let head = new Uint8Array(0);
  while (head.length < wanted) {
    const next = await chunks.next();
    if (next.done) break;
    const longer = new Uint8Array(head.length + next.value.length);
    longer.set(head);
    longer.set(next.value, head.length);
    head = longer;
  }
  return head;
}

/** With `bestEffort` a stream that is cut ends where it is cut; what lies in it is then found cut by its own reader. */
async function* unzip(stream: AsyncIterable<Uint8Array>, bestEffort: boolean): AsyncGenerator<Uint8Array> {
  const finishFlush = bestEffort ? constants.Z_SYNC_FLUSH : constants.Z_FINISH;
  const gunzip = createGunzip({ chunkSize: 1 << 18, finishFlush });
  const feeding = (async () => {
    try {
      for await (const chunk of stream)
        if (!gunzip.write(chunk)) await new Promise((done) => gunzip.once("drain", done));
      gunzip.end();
    } catch (error) {
      gunzip.destroy(error as Error);
    }
  })();
  yield* gunzip as AsyncIterable<Uint8Array>;
  await feeding;
}

/** A name that is not UTF-8 does not come through: its odd bytes are lost before the program sees it. */
const unreadableName = (name: string): string =>
  name.includes("\ufffd") ? "; a name that is not UTF-8 cannot be opened by it: use - < FILE" : "";

/** The system's errors in our words. */
async function* explain(
  stream: AsyncIterable<Uint8Array>,
  name: string,
  canBestEffort = false,
): AsyncGenerator<Uint8Array> {
  try {
    yield* stream;
  } catch (error) {
    if (error instanceof DmaError) throw error;
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === "ENOENT")
      throw new DmaError("ERR_DMA_INPUT", "ENOENT", `${name}: no such file${unreadableName(name)}`, { name });
    if (code === "EISDIR")
      throw new DmaError(
        "ERR_DMA_INPUT",
        "EINVAL",
        `${name} is a folder: name a file in it (check and query take folders)`,
        { name },
      );
    if (code === "Z_BUF_ERROR" || code === "Z_DATA_ERROR")
      throw new DmaError(
        "ERR_DMA_INPUT",
        "EIO",
        `${name}: the gzip stream is cut or damaged (${message})${canBestEffort ? "; --best-effort reads what is before that" : ""}`,
        { name },
      );
    throw new DmaError("ERR_DMA_INPUT", "EIO", `${name}: ${message}`, { name });
  }
}

/**
 * All of a file of text, unpacked.
 *
 * @throws DmaError ERR_DMA_INPUT (EINVAL): it is a trace, or longer than `mostBytes`; or as of {@link openInput}
 */
export async function readText(file: string, mostBytes: number): Promise<string> {
  const source = await openInput(file);
  try {
    if (!("stream" in source.input)) throw new DmaError("ERR_DMA_INPUT", "EINVAL", `${file} is a trace`, { file });
    const parts: Uint8Array[] = [];
    let size = 0;
    for await (const part of source.input.stream) {
      size += part.length;
      if (size > mostBytes)
        throw new DmaError("ERR_DMA_INPUT", "EINVAL", `${file}: more than ${mostBytes} bytes unpacked`, { file });
      parts.push(part.slice());
    }
    return Buffer.concat(parts, size).toString("utf8");
  } finally {
    await source.close();
  }
}
