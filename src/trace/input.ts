/**
 * Where the bytes of a trace come from, as the caller offers them: a file that can be read anywhere, or a stream.
 *
 * Idea: this folder knows no file system. A caller with a file gives `read`, a caller with a pipe gives a stream. Gzip
 * is unwrapped by the caller. Not for: writing.
 */
import { damaged } from "./errors.ts";

/** A file: bytes anywhere. */
export interface FileInput {
  /** For messages. */
  readonly name: string;
  /** Bytes. */
  readonly size: number;
  /** Bytes from `offset`; fewer than `length` only where the file ends. The result may be reused by the caller. */
  read(offset: number, length: number): Promise<Uint8Array>;
}

/** A pipe: bytes in order, once. Text formats only. */
export interface StreamInput {
  /** For messages. */
  readonly name: string;
  /** The bytes, in pieces of any length. */
  readonly stream: AsyncIterable<Uint8Array>;
}

/** Where a trace comes from: a file that can be read anywhere, or a stream. */
export type TraceInput = FileInput | StreamInput;

/** What reads a file at any place: a `FileHandle` of `node:fs/promises` does, and others can. */
export interface ReadableAt {
  /**
   * Reads up to `length` bytes at byte `position` of the file into `buffer` from `offset` on; how many. 0: end of the
   * file.
   */
  read(
    buffer: Uint8Array,
    offset: number,
    length: number,
    position: number,
  ): Promise<{
    /** Bytes that are in `buffer` now. */
    readonly bytesRead: number;
  }>;
}

/** A file that is in memory: what `readFile` gives, or what a gzip was unwrapped to. */
export const bytesInput = (name: string, bytes: Uint8Array): FileInput => ({
  name,
  size: bytes.length,
  read: async (offset, length) => bytes.subarray(offset, offset + length),
});

/** An open file, of which only what is needed is read. It stays the caller's to close. */
export const fileInput = (name: string, size: number, file: ReadableAt): FileInput => ({
  name,
  size,
  async read(offset, length) {
    const buffer = new Uint8Array(Math.max(0, Math.min(length, size - offset)));
    const { bytesRead } = await file.read(buffer, 0, buffer.length, offset);
    return buffer.subarray(0, bytesRead);
  },
});

/** Bytes asked of a file at once when it is read from end to end. */
const CHUNK_BYTES = 256 * 1024;

/** Exactly `length` bytes, or the error that says where the file ends. */
export async function readExactly(input: FileInput, offset: number, length: number, what: string): Promise<Uint8Array> {
  if (offset + length > input.size)
    throw damaged(
      Math.min(offset, input.size),
      `expected ${length} bytes of ${what} at offset ${offset}, the file ends at ${input.size}`,
    );
  const bytes = await input.read(offset, length);
  if (bytes.length < length)
    throw damaged(offset + bytes.length, `expected ${length} bytes of ${what}, could read ${bytes.length}`);
  return bytes.length > length ? bytes.subarray(0, length) : bytes;
}

/** Any input as a stream. */
export async function* inputChunks(input: TraceInput): AsyncGenerator<Uint8Array> {
  if ("stream" in input) {
    yield* input.stream;
    return;
  }
  for (let offset = 0; offset < input.size; ) {
    const bytes = await input.read(offset, Math.min(CHUNK_BYTES, input.size - offset));
    if (bytes.length === 0)
      throw damaged(offset, `expected ${input.size - offset} more bytes of ${input.name}, could read none`);
    yield bytes;
    offset += bytes.length;
  }
}
