/**
 * A file that was dropped on the page, as the trace readers want it: bytes at any place, unpacked.
 *
 * Idea: a browser's `Blob` is a file that can be read anywhere, and it may lie on disk. A packed file (gzip, zstd) is unpacked to another one.
 * Promises: a packed file is at most 200 times as long unpacked, and 64 MiB, as for the command line. One that is cut gives what
 * was before the cut, and {@link Unpacked.cut} says so.
 */
import { bytes, DmaError } from "../../../base/index.ts";
import { type FileInput, unzstdStream, ZSTD_MAGIC } from "../../../trace/index.ts";
import type { Tell } from "../frame/calls.ts";

const UNPACKED_ALWAYS = 64 * 1024 * 1024;
const MOST_UNPACKED_SHARE = 200;

/** A file without its packing. */
interface Unpacked {
  readonly blob: Blob;
  /** Why its packed stream ended early. */
  readonly cut?: string;
}

/** `file` as it is, or unpacked where it is packed. */
export async function unpacked(file: File, tell: Tell): Promise<Unpacked> {
  const head = new Uint8Array(await file.slice(0, 4).arrayBuffer());
  const gzip = head[0] === 0x1f && head[1] === 0x8b;
  const zstd = ZSTD_MAGIC.every((byte, i) => head[i] === byte);
  if (!gzip && !zstd) return { blob: file };
  const packed = { bytes: 0 };
  const chunks = counted(file, packed, (share) => tell(`unpacking ${file.name}`, share));
  const parts: BlobPart[] = [];
  let size = 0;
  try {
    for await (const part of gzip ? gunzip(chunks) : unzstdStream(chunks, true)) {
      size += part.length;
      if (size > UNPACKED_ALWAYS + MOST_UNPACKED_SHARE * packed.bytes)
        throw new DmaError(
          "ERR_DMA_INPUT",
          "EINVAL",
          `${file.name}: ${bytes(packed.bytes)} unpack to more than ${bytes(size)}, which no recording does. If it is one, unpack it first`,
          { name: file.name, packedBytes: packed.bytes },
        );
      parts.push(part as Uint8Array<ArrayBuffer>);
    }
  } catch (error) {
    if (error instanceof DmaError) throw error;
    return { blob: new Blob(parts), cut: `the packed file is cut or damaged (${(error as Error).message})` };
  }
  return { blob: new Blob(parts) };
}

async function* counted(
  file: File,
  packed: { bytes: number },
  reached: (share: number) => void,
): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < file.size; at += BLOCK_BYTES) {
    const block = new Uint8Array(await file.slice(at, at + BLOCK_BYTES).arrayBuffer());
    packed.bytes += block.length;
    reached(packed.bytes / file.size);
    yield block;
  }
}

async function* gunzip(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  const stream = new DecompressionStream("gzip");
  const writer = stream.writable.getWriter();
  const feeding = (async () => {
    for await (const chunk of chunks) await writer.write(chunk as Uint8Array<ArrayBuffer>);
    await writer.close();
  })();
  feeding.catch(() => undefined); // the reader fails with the same
  const reader = stream.readable.getReader();
  for (let next = await reader.read(); !next.done; next = await reader.read()) yield next.value;
}

const BLOCK_BYTES = 1024 * 1024;
/** Blocks that are kept: a trace.dat is read at a place for each CPU, in turns. */
const MOST_BLOCKS = 64;

/** A blob as a reader's input; blocks that were read are kept for a while, since each asking of a blob costs. */
export function blobInput(name: string, blob: Blob): FileInput {
  const blocks = new Map<number, Uint8Array>();
  const blockAt = async (index: number): Promise<Uint8Array> => {
    let block = blocks.get(index);
    if (block) blocks.delete(index);
    else block = new Uint8Array(await blob.slice(index * BLOCK_BYTES, (index + 1) * BLOCK_BYTES).arrayBuffer());
    blocks.set(index, block); // the newest is last
    if (blocks.size > MOST_BLOCKS) blocks.delete(blocks.keys().next().value!);
    return block;
  };
  return {
    name,
    size: blob.size,
    async read(offset, length) {
      const end = Math.min(offset + length, blob.size);
      const first = Math.floor(offset / BLOCK_BYTES);
      if (end <= (first + 1) * BLOCK_BYTES) {
        const block = await blockAt(first);
        return block.subarray(offset - first * BLOCK_BYTES, Math.max(0, end - first * BLOCK_BYTES));
      }
      return new Uint8Array(await blob.slice(offset, end).arrayBuffer());
    },
  };
}
