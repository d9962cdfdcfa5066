/** Decompression by Node's own zlib, where it has it: faster than the portable ones. */
import * as zlib from "node:zlib";
import { type Codecs, DEFAULT_CODECS } from "../../../trace/index.ts";

type Unzstd = (bytes: Uint8Array, options: { maxOutputLength: number }) => Uint8Array;
const unzstd = (zlib as unknown as { zstdDecompressSync?: Unzstd }).zstdDecompressSync;

export const NODE_CODECS: Codecs = {
  inflate: (bytes, uncompressedSize) => zlib.inflateSync(bytes, { maxOutputLength: uncompressedSize + 1 }),
  unzstd: unzstd
    ? (bytes, uncompressedSize) => unzstd(bytes, { maxOutputLength: uncompressedSize + 1 })
    : DEFAULT_CODECS.unzstd,
};
