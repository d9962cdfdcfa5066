/**
 * Which chunk of addresses a page fault makes a range of.
 *
 * Idea: the largest aligned chunk around the address that lies whole in its area, its notifier and the GPU's window, overlaps no range that is
 * there, and, if it is small, is in memory already; so that what is brought at once is what is likely to be used.
 * Specified by: behaviour of Linux 7.2 drm_gpusvm_range_chunk_size.
 */
import { PAGE_SIZE } from "../../base/index.ts";
import { noChunk } from "./errors.ts";

/** Bytes [start, end). */
export interface Span {
  readonly start: number;
  readonly end: number;
}

/** What bounds the choice. */
export interface ChunkQuestion {
  /** The address that was touched. */
  readonly address: number;
  /** Sizes in bytes, powers of two, falling, ending in 4096. */
  readonly chunks: readonly number[];
  /** Spans that the range has to lie in: area, notifier, window. */
  readonly within: readonly Span[];
  /** A range overlaps [start, end). */
  readonly overlaps: (start: number, end: number) => boolean;
  /** Chunks up to this many bytes, and above 4096, need all their pages present. 0: none. */
  readonly checkPagesBytes: number;
  /** All pages of [start, end) are in the CPU's page table. */
  readonly isPresent: (start: number, end: number) => boolean;
}

/**
 * The chunk of addresses around a touched one.
 *
 * @throws DmaError ERR_DMA_GPU_CHUNK (EINVAL) if not even a page fits
 */
export function chooseChunk(question: ChunkQuestion): Span {
  const { address, chunks, within, overlaps, checkPagesBytes, isPresent } = question;
  for (const bytes of chunks) {
    const start = Math.floor(address / bytes) * bytes;
    const end = start + bytes;
    if (!within.every((span) => start >= span.start && end <= span.end)) continue;
    if (bytes > PAGE_SIZE) {
      if (overlaps(start, end)) continue;
      if (bytes <= checkPagesBytes && !isPresent(start, end)) continue;
    }
    return { start, end };
  }
  throw noChunk(address);
}
