/**
 * The records of a perf.data file, one after another, those inside compressed ones too.
 *
 * Idea: a window over the file, and beside it one over what compressed records unpack to: they are one zstd stream, cut
 * anywhere, so a record may begin in one and end in the next.
 * Promises: memory is two windows; a record never reaches outside its source; what a compressed record may unpack to is
 * bounded. Specified by: `struct perf_event_header`, PERF_RECORD_COMPRESSED and COMPRESSED2, PERF_RECORD_AUXTRACE.
 */
import { Decompress } from "fzstd";
import { damaged } from "../errors.ts";
import type { FileInput } from "../input.ts";

export const RECORD = {
  mmap: 1,
  lost: 2,
  comm: 3,
  fork: 7,
  sample: 9,
  mmap2: 10,
  lostSamples: 13,
  attr: 64,
  tracingData: 66,
  finishedRound: 68,
  auxtrace: 71,
  feature: 80,
  compressed: 81,
  compressed2: 83,
} as const;

const HEADER_BYTES = 8;
const WINDOW_BYTES = 512 * 1024;
/** A compressed record has 64 KiB at most; a real one holds no more than the ring buffer it was taken from. */
const MOST_UNPACKED = 64 * 1024 * 1024;

/** What {@link PerfRecords.next} found. */
const FOUND = 1;
/** More of the file must be loaded. */
export const LOAD = 2;
export const END = 3;

export class PerfRecords {
  /** The current record: its type, and its body [start, end) in `bytes`. */
  type = 0;
  misc = 0;
  bytes: Uint8Array = new Uint8Array(0);
  start = 0;
  end = 0;
  /** Offset in the file of the record, or of the compressed one that holds it. */
  offset = 0;

  readonly #input: FileInput;
  readonly #little: boolean;
  readonly #dataEnd: number;
  #window: Uint8Array = new Uint8Array(0);
  #windowOffset: number;
  #at = 0;
  #inner: Uint8Array = new Uint8Array(0);
  #innerAt = 0;
  #innerEnd = 0;
  #innerOffset = 0;
  #zstd: Decompress | undefined;

  constructor(input: FileInput, littleEndian: boolean, dataOffset: number, dataEnd: number) {
    this.#input = input;
    this.#little = littleEndian;
    this.#windowOffset = dataOffset;
    this.#dataEnd = dataEnd;
  }

  /** Loads the window anew, from the first byte that was not used. */
  async load(): Promise<void> {
    this.#windowOffset += this.#at;
    this.#at = 0;
    const left = Math.max(0, Math.min(this.#dataEnd, this.#input.size) - this.#windowOffset);
    this.#window =
      left === 0
        ? new Uint8Array(0)
        : (await this.#input.read(this.#windowOffset, Math.min(left, WINDOW_BYTES))).slice();
  }

  /** Steps to the next record. Errors: ERR_DMA_TRACE_DAMAGED. */
  next(): number {
    for (;;) {
      if (this.#nextInner()) return FOUND;
      const at = this.#at;
      const offset = this.#windowOffset + at;
      if (offset >= this.#dataEnd) return this.#ended();
      const there = this.#window.length - at;
      const size = there >= HEADER_BYTES ? this.#u16(this.#window, at + 6) : HEADER_BYTES;
      if (there < size) {
        if (offset + size > Math.min(this.#dataEnd, this.#input.size))
          throw damaged(
            offset,
            `a record of ${size} bytes, ${Math.min(this.#dataEnd, this.#input.size) - offset} are left`,
          );
        return LOAD;
      }
      if (size < HEADER_BYTES)
        throw damaged(offset, `expected a record of at least ${HEADER_BYTES} bytes, found ${size}`);
      this.#take(this.#window, at, size);
      this.offset = offset;
      this.#at = at + size;
      if (this.type === RECORD.compressed || this.type === RECORD.compressed2) this.#unpack();
      else {
        if (this.type === RECORD.auxtrace) this.skipBehind(this.start);
        return FOUND;
      }
    }
  }

  /** Steps over the bytes behind the record that a number of 32 bits in it, at `at`, counts. */
  skipBehind(at: number): number {
    const size = at + 4 <= this.end ? this.#u32(this.bytes, at) : 0;
    const offset = this.#windowOffset + this.#at;
    if (offset + size > this.#dataEnd) throw damaged(offset, `${size} bytes behind a record, the file ends before`);
    this.#at += size;
    if (this.#at > this.#window.length) {
      this.#windowOffset += this.#at;
      this.#at = 0;
      this.#window = new Uint8Array(0);
    }
    return offset;
  }

  #ended(): number {
    if (this.#innerAt < this.#innerEnd)
      throw damaged(this.#innerOffset, `${this.#innerEnd - this.#innerAt} unpacked bytes that are no whole record`);
    return END;
  }

  #nextInner(): boolean {
    const left = this.#innerEnd - this.#innerAt;
    if (left < HEADER_BYTES) return false;
    const size = this.#u16(this.#inner, this.#innerAt + 6);
    if (size < HEADER_BYTES)
      throw damaged(this.#innerOffset, `expected a record of at least ${HEADER_BYTES} bytes, found ${size}`);
    if (left < size) return false;
    this.#take(this.#inner, this.#innerAt, size);
    this.offset = this.#innerOffset;
    this.#innerAt += size;
    return true;
  }

  #take(bytes: Uint8Array, at: number, size: number): void {
    this.bytes = bytes;
    this.type = this.#u32(bytes, at);
    this.misc = this.#u16(bytes, at + 4);
    this.start = at + HEADER_BYTES;
    this.end = at + size;
  }

  #unpack(): void {
    let { start, end } = this;
    if (this.type === RECORD.compressed2) {
      // A length of 64 bits, then the data, then padding.
      const length = start + 8 <= end ? this.#u32(this.bytes, this.#little ? start : start + 4) : 0;
      start += 8;
      end = Math.min(end, start + length);
    }
    this.#inner.copyWithin(0, this.#innerAt, this.#innerEnd);
    this.#innerEnd -= this.#innerAt;
    this.#innerAt = 0;
    this.#innerOffset = this.offset;
    const before = this.#innerEnd;
    this.#zstd ??= new Decompress((chunk) => this.#append(chunk, before));
    this.#zstd.ondata = (chunk) => this.#append(chunk, before);
    try {
      this.#zstd.push(this.bytes.slice(start, end));
    } catch (cause) {
      throw damaged(
        this.offset,
        `a compressed record of ${end - start} bytes does not unpack: ${(cause as Error).message}`,
      );
    }
  }

  #append(chunk: Uint8Array, before: number): void {
    const end = this.#innerEnd + chunk.length;
    if (end - before > MOST_UNPACKED) throw new RangeError(`more than ${MOST_UNPACKED} bytes`);
    if (end > this.#inner.length) {
      const wider = new Uint8Array(Math.max(end * 2, WINDOW_BYTES));
      wider.set(this.#inner.subarray(0, this.#innerEnd));
      this.#inner = wider;
    }
    this.#inner.set(chunk, this.#innerEnd);
    this.#innerEnd = end;
  }

  #u16(bytes: Uint8Array, at: number): number {
    return this.#little ? bytes[at]! | (bytes[at + 1]! << 8) : (bytes[at]! << 8) | bytes[at + 1]!;
  }

  #u32(bytes: Uint8Array, at: number): number {
    const [a, b, c, d] = [bytes[at]!, bytes[at + 1]!, bytes[at + 2]!, bytes[at + 3]!];
    return (this.#little ? a | (b << 8) | (c << 16) | (d << 24) : d | (c << 8) | (b << 16) | (a << 24)) >>> 0;
  }
}
