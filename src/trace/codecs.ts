/**
 * Decompression of the sections of a trace.dat file.
 *
 * Idea: what to unpack with is the caller's choice (Node has faster codecs than a browser); the default needs nothing.
 * Promises: never gives more or fewer bytes than the file announces, and the file cannot announce more than its
 * compressed bytes could hold.
 */
import { Decompress, decompress as zstdDecompress } from "fzstd";
import { DmaError } from "../base/index.ts";
import { damaged } from "./errors.ts";

/** Unpacks one block; the answer has exactly `uncompressedSize` bytes. */
export interface Codecs {
  /** zlib: a deflate stream with its two-byte header. */
  inflate(bytes: Uint8Array, uncompressedSize: number): Uint8Array | Promise<Uint8Array>;
  /** One zstd frame. */
  unzstd(bytes: Uint8Array, uncompressedSize: number): Uint8Array | Promise<Uint8Array>;
}

/**
 * Where the zstd decoder writes. With an output given it allocates no window of the size that the frame asks for; but it
 * also compares the output with a number (fzstd 0.1.1), which would print every byte of it: half of all the time.
 */
const outputOf = (size: number): Uint8Array =>
  Object.defineProperty(new Uint8Array(size), Symbol.toPrimitive, { value: () => 0 });

/** What every runtime has: `DecompressionStream`, and a zstd decoder in JavaScript. */
export const DEFAULT_CODECS: Codecs = {
  async inflate(bytes, uncompressedSize) {
    const unpacked = new Uint8Array(uncompressedSize);
    let used = 0;
    const stream = new Blob([bytes.slice()]).stream().pipeThrough(new DecompressionStream("deflate"));
    const reader = stream.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      if (used + value.length > uncompressedSize) {
        await reader.cancel();
        throw new RangeError(`more than ${uncompressedSize} bytes`);
      }
      unpacked.set(value, used);
      used += value.length;
    }
    return unpacked.subarray(0, used);
  },
  unzstd: (bytes, uncompressedSize) => zstdDecompress(bytes, outputOf(uncompressedSize)),
};

export type Compression = "none" | "zlib" | "zstd";

/** No real section packs tighter than this; a longer announced length is damage, not a reason to allocate. */
const MOST_PER_BYTE = 8192;
const LARGEST_BLOCK = 256 * 1024 * 1024;

/** Unpacks a block that lies at `offset` of the file. Errors: ERR_DMA_TRACE_DAMAGED. */
export async function unpack(
  codecs: Codecs,
  compression: Compression,
  packed: Uint8Array,
  uncompressedSize: number,
  offset: number,
): Promise<Uint8Array> {
  if (uncompressedSize > packed.length * MOST_PER_BYTE + 65536 || uncompressedSize > LARGEST_BLOCK)
    throw damaged(offset, `${packed.length} compressed bytes cannot hold the announced ${uncompressedSize}`);
  if (compression === "none") throw damaged(offset, "a compressed section in a file that names no compression");
  let unpacked: Uint8Array;
  try {
    unpacked = await (compression === "zstd"
      ? codecs.unzstd(packed, uncompressedSize)
      : codecs.inflate(packed, uncompressedSize));
  } catch (cause) {
    if (cause instanceof DmaError) throw cause;
    throw damaged(offset, `${compression} data of ${packed.length} bytes does not unpack: ${(cause as Error).message}`);
  }
  if (unpacked.length !== uncompressedSize)
    throw damaged(offset, `expected ${uncompressedSize} bytes of ${compression} data unpacked, got ${unpacked.length}`);
  return unpacked;
}

/** The bytes a zstd file begins with. */
export const ZSTD_MAGIC: readonly number[] = [0x28, 0xb5, 0x2f, 0xfd];

/**
 * Unpacks a zstd stream as it comes. With `bestEffort` one that is cut ends where it is cut.
 *
 * @throws DmaError ERR_DMA_TRACE_DAMAGED (EINVAL): it is cut or damaged, at an offset of the packed bytes
 */
export async function* unzstdStream(chunks: AsyncIterable<Uint8Array>, bestEffort = false): AsyncGenerator<Uint8Array> {
  let unpacked: Uint8Array[] = [];
  let offset = 0;
  const stream = new Decompress((chunk) => void unpacked.push(chunk.slice()));
  const taken = (): Uint8Array[] => {
    const ready = unpacked;
    unpacked = [];
    return ready;
  };
  try {
    for await (const chunk of chunks) {
      stream.push(chunk.slice());
      offset += chunk.length;
      yield* taken();
    }
    stream.push(new Uint8Array(0), true);
  } catch (cause) {
    if (cause instanceof DmaError) throw cause;
    if (!bestEffort) throw damaged(offset, `the zstd data is cut or damaged: ${(cause as Error).message}`);
  }
  yield* taken();
}
