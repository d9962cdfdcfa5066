/**
 * One CPU's ring-buffer pages as a sequence of events.
 *
 * Idea: a window of pages is loaded at a time; `advance` walks it event by event without making an object: the current
 * event is in the fields `timeNs`, `recordStart` and `recordEnd`. All numbers are read through 32-bit words; the words of
 * a file in the other byte order are swapped once a window.
 * Promises: memory is one window, whatever the file's size. A page that makes no sense stops this CPU and says where.
 * Specified by: the kernel's ring buffer as `header_page` and `header_event` of the file describe it.
 */
import { type Codecs, type Compression, unpack } from "./codecs.ts";
import type { CpuExtent } from "./dat-metadata.ts";
import { damaged, type TraceDamage } from "./errors.ts";
import type { PageFormat } from "./event-format.ts";
import { type FileInput, readExactly } from "./input.ts";
import { LAST_NS } from "./timing.ts";

const WINDOW_BYTES = 256 * 1024;
/** A chunk that claims more is damage: trace-cmd packs ten pages at a time. */
const LARGEST_CHUNK = 1024 * 1024;
const MOST_PAGES = 16;
/** The windows of all CPUs together: real ones are far below. */
const MOST_HELD = 1024 * 1024 * 1024;
const HOST_IS_LITTLE = new Uint8Array(new Uint32Array([1]).buffer)[0] === 1;

const PADDING = 29;
const TIME_EXTEND = 30;
const TIME_STAMP = 31;
const COMMIT_MASK = 0x07ff_ffff;
const MISSED = 0x8000_0000;
const MISSED_STORED = 0x4000_0000;
const TWO_32 = 0x1_0000_0000;
/** Steps of the top five bits, which an absolute stamp does not carry. */
const STAMP_WRAP = 2 ** 59;

export interface StreamSetting {
  readonly input: FileInput;
  readonly codecs: Codecs;
  readonly compression: Compression;
  readonly littleEndian: boolean;
  readonly page: PageFormat;
  /** Stamp that times are counted from. */
  base: bigint;
  /** Bytes in the windows of all CPUs. */
  held: number;
}

export class CpuStream {
  readonly cpu: number;
  readonly buffer: number;
  /** Place in the file. */
  readonly order: number;
  readonly #setting: StreamSetting;
  readonly #extent: CpuExtent;
  readonly #little: boolean;
  readonly #swap: boolean;

  /** The window, as bytes and as words in the host's order. */
  bytes: Uint8Array = new Uint8Array(0);
  words: Uint32Array = new Uint32Array(0);
  #windowEnd = 0;
  /** Of the window's first byte, or of the packed chunk it came from. */
  #windowOffset = 0;
  #packed = false;
  #carry: Uint8Array = new Uint8Array(0);
  /** Next byte of the extent to load. */
  #loaded: number;
  readonly #end: number;
  #chunksLeft = -1;

  #pageEnd = 0;
  #position = 0;
  #dataEnd = 0;

  /** The current event: nanoseconds (or cycles) since the base, and its bytes [recordStart, recordEnd). */
  timeNs = 0;
  recordStart = 0;
  recordEnd = 0;
  /** Events missed before the current one: 0 none, -1 an unknown number. */
  missed = 0;
  /** There is a current event. */
  hasRecord = false;
  /** Nothing more will come. */
  done = false;
  damage: TraceDamage | undefined;

  constructor(extent: CpuExtent, setting: StreamSetting, order: number) {
    this.order = order;
    this.cpu = extent.cpu;
    this.buffer = extent.buffer;
    this.#extent = extent;
    this.#setting = setting;
    this.#little = setting.littleEndian;
    this.#swap = setting.littleEndian !== HOST_IS_LITTLE;
    this.#loaded = extent.offset;
    // The recorded size of packed pages leaves out the number of chunks before them.
    this.#end = extent.offset + extent.size + (extent.chunked ? 4 : 0);
  }

  /** Stops here: `at` is a byte of the window. */
  fail(at: number, message: string): false {
    this.done = true;
    this.hasRecord = false;
    this.damage = this.#packed
      ? { offset: this.#windowOffset, message: `${message} (byte ${at} of the chunk packed here)` }
      : { offset: this.#windowOffset + at, message };
    return false;
  }

  /** Loads the next window. Sets `done` at the end. Errors: ERR_DMA_TRACE_DAMAGED. */
  async load(): Promise<void> {
    if (this.done) return;
    const pageSize = this.#extent.pageSize;
    const size = this.#extent.chunked ? await this.#loadChunk() : await this.#loadPages();
    if (size < 0) {
      this.done = true;
      return;
    }
    this.#windowEnd = size;
    this.#pageEnd = 0;
    this.#position = 0;
    this.#dataEnd = 0;
    if (this.#swap) {
      const words = new Uint32Array(this.bytes.length >>> 2);
      const raw = this.bytes;
      for (let i = 0; i < words.length; i++) {
        const at = i * 4;
        words[i] = this.#little
          ? raw[at]! | (raw[at + 1]! << 8) | (raw[at + 2]! << 16) | (raw[at + 3]! << 24)
          : (raw[at]! << 24) | (raw[at + 1]! << 16) | (raw[at + 2]! << 8) | raw[at + 3]!;
      }
      this.words = words;
    }
    if (this.#windowEnd < pageSize && this.#loaded < this.#end) await this.load();
  }

  /** Room for `size` bytes, aligned and a whole number of words. */
  #reserve(size: number): void {
    const rounded = (size + 7) & ~7;
    if (this.bytes.length >= rounded) return;
    this.#setting.held += rounded - this.bytes.length;
    if (this.#setting.held > MOST_HELD)
      throw damaged(this.#loaded, `the pages of all CPUs that are needed at once unpack to over ${MOST_HELD} bytes`);
    this.bytes = new Uint8Array(new ArrayBuffer(rounded));
    if (!this.#swap) this.words = new Uint32Array(this.bytes.buffer);
  }

  async #loadPages(): Promise<number> {
    const left = this.#end - this.#loaded;
    if (left <= 0) return -1;
    const pageSize = this.#extent.pageSize;
    const size = Math.min(left, Math.max(pageSize, WINDOW_BYTES - (WINDOW_BYTES % pageSize)));
    // What the file still has of a cut window is worth reading: the events before the cut are whole.
    const there = Math.min(size, Math.max(0, this.#setting.input.size - this.#loaded));
    const raw = there > 0 ? await readExactly(this.#setting.input, this.#loaded, there, "pages") : this.#carry;
    this.#reserve(size);
    this.bytes.set(raw.subarray(0, there));
    this.#windowOffset = this.#loaded;
    if (there < size) {
      this.damage = {
        offset: this.#loaded + there,
        message: `expected ${size - there} more bytes of CPU ${this.cpu}'s pages`,
      };
      this.#loaded = this.#end;
      return there === 0 ? -1 : there;
    }
    this.#loaded += size;
    return size;
  }

  async #loadChunk(): Promise<number> {
    const { input, codecs, compression } = this.#setting;
    const number = async (what: string): Promise<number> => {
      if (this.#loaded + 4 > this.#end) throw damaged(this.#loaded, `expected ${what}, the CPU's data ends`);
      const b = await readExactly(input, this.#loaded, 4, what);
      this.#loaded += 4;
      return this.#little
        ? b[0]! + b[1]! * 256 + b[2]! * 65536 + b[3]! * 0x100_0000
        : b[3]! + b[2]! * 256 + b[1]! * 65536 + b[0]! * 0x100_0000;
    };
    if (this.#chunksLeft < 0) this.#chunksLeft = await number("the number of chunks");
    if (this.#chunksLeft === 0) return -1;
    const at = this.#loaded;
    const packedSize = await number("a compressed size");
    const size = await number("an uncompressed size");
    const largest = Math.max(LARGEST_CHUNK, MOST_PAGES * this.#extent.pageSize);
    if (packedSize > this.#end - this.#loaded || size > largest)
      throw damaged(at, `a chunk of ${packedSize} bytes (${size} unpacked), ${this.#end - this.#loaded} are left`);
    const packed = await readExactly(input, this.#loaded, packedSize, "a chunk");
    const chunk = await unpack(codecs, compression, packed, size, at);
    this.#loaded += packedSize;
    this.#chunksLeft--;
    const whole = this.#carry.length + size;
    this.#reserve(whole);
    this.bytes.set(this.#carry);
    this.bytes.set(chunk, this.#carry.length);
    this.#windowOffset = at;
    this.#packed = true;
    const rest = this.#chunksLeft === 0 ? 0 : whole % this.#extent.pageSize;
    this.#carry = this.bytes.slice(whole - rest, whole);
    if (this.#chunksLeft === 0) this.#loaded = this.#end;
    return whole - rest;
  }

  /** The time stamp of the window's first page; undefined when there is none. */
  firstStamp(): bigint | undefined {
    const at = (this.#setting.page.timestampOffset >>> 2) + (this.#pageEnd >>> 2);
    if (this.#windowEnd < this.#setting.page.timestampOffset + 8) return undefined;
    const low = this.words[this.#little ? at : at + 1]!;
    const high = this.words[this.#little ? at + 1 : at]!;
    return (BigInt(high) << 32n) | BigInt(low);
  }

  /** Steps to the next page of the window. False: the window is used up, or the page is damaged (`done`). */
  #nextPage(): boolean {
    const start = this.#pageEnd;
    const { timestampOffset, commitOffset, commitSize, dataOffset } = this.#setting.page;
    const end = Math.min(start + this.#extent.pageSize, this.#windowEnd);
    if (start >= this.#windowEnd) {
      if (this.damage) this.done = true; // the file was cut inside this window
      return false;
    }
    if (end - start < dataOffset) return this.damage ? this.#stop() : this.fail(start, "expected a whole page header");
    const words = this.words;
    const stamp = (start + timestampOffset) >>> 2;
    const low = words[this.#little ? stamp : stamp + 1]!;
    const high = words[this.#little ? stamp + 1 : stamp]!;
    const base = this.#setting.base;
    this.timeNs = (high - Number(base >> 32n)) * TWO_32 + (low - Number(base & 0xffff_ffffn));
    if (!(this.timeNs >= 0 && this.timeNs <= LAST_NS))
      return this.fail(
        start + timestampOffset,
        "the time of a page is further from the first than times can be told apart",
      );
    const commit = (start + commitOffset) >>> 2;
    const flags = words[this.#little || commitSize === 4 ? commit : commit + 1]!;
    const size = flags & COMMIT_MASK;
    const dataStart = start + dataOffset;
    const dataEnd = dataStart + size;
    if (dataEnd > start + this.#extent.pageSize)
      return this.fail(start + commitOffset, `a page of ${this.#extent.pageSize} bytes cannot hold ${size} of data`);
    if (dataEnd > end) {
      if (!this.damage) return this.fail(start + commitOffset, `expected ${size} bytes of data, the pages end`);
      this.#dataEnd = end; // cut: the events that are whole are still good
    } else this.#dataEnd = dataEnd;
    if ((flags & MISSED) !== 0) {
      this.missed = -1;
      if ((flags & MISSED_STORED) !== 0 && dataEnd + commitSize <= end) {
        const at = dataEnd >>> 2;
        this.missed = words[this.#little || commitSize === 4 ? at : at + 1]! | 0;
        if (this.missed <= 0) this.missed = -1;
      }
    }
    this.#position = dataStart;
    this.#pageEnd = start + this.#extent.pageSize;
    return true;
  }

  #stop(): false {
    this.done = true;
    return false;
  }

  /** Steps to the next event. False: `load` first, or, when `done`, never again. */
  advance(): boolean {
    this.hasRecord = false;
    if (this.done) return false;
    const little = this.#little;
    const words = this.words;
    let position = this.#position;
    let time = this.timeNs;
    for (;;) {
      if (position >= this.#dataEnd) {
        if (!this.#nextPage()) return false;
        position = this.#position;
        time = this.timeNs;
        continue;
      }
      const header = words[position >>> 2]!;
      const kind = little ? header & 31 : header >>> 27;
      const delta = little ? header >>> 5 : header & 0x07ff_ffff;
      if (kind < PADDING && kind > 0) {
        time += delta;
        this.recordStart = position + 4;
        position += 4 + kind * 4;
        this.recordEnd = position;
        break;
      }
      if (position + 8 > this.#dataEnd && !(kind === PADDING && delta === 0))
        return this.#outside(position, "an event header");
      const next = position + 8 <= this.#dataEnd ? words[(position >>> 2) + 1]! : 0;
      if (kind === 0) {
        time += delta;
        if (next < 4) return this.fail(position, `expected an event of at least 4 bytes, found ${next}`);
        this.recordStart = position + 8;
        position += 4 + Math.ceil(next / 4) * 4;
        this.recordEnd = position;
        break;
      }
      if (kind === PADDING) {
        if (delta === 0) {
          position = this.#dataEnd; // the rest of the page was never written
          continue;
        }
        time += delta;
        position += 4 + Math.ceil(next / 4) * 4;
        if (position > this.#dataEnd) return this.#outside(position, "a discarded event");
      } else {
        if (kind === TIME_EXTEND) time += next * 0x800_0000 + delta;
        else if (kind === TIME_STAMP) time = this.#absolute(time, next, delta);
        position += 8;
      }
    }
    if (position > this.#dataEnd) return this.#outside(this.recordStart, "an event");
    if (!(time >= 0 && time <= LAST_NS))
      return this.fail(this.recordStart, "the time of an event is further from the first than times can be told apart");
    this.#position = position;
    this.timeNs = time;
    this.hasRecord = true;
    return true;
  }

  #outside(at: number, what: string): false {
    return this.damage ? this.#stop() : this.fail(at, `${what} reaches past the end of its page's data`);
  }

  /** A stamp of 59 bits; the five above come from the time so far, one more when it would run backwards. */
  #absolute(time: number, high: number, low: number): number {
    const base = this.#setting.base;
    const stamp = (BigInt(high) << 27n) | BigInt(low);
    const before = base + BigInt(Math.trunc(time));
    let absolute = ((before >> 59n) << 59n) + (stamp & (BigInt(STAMP_WRAP) - 1n));
    if (before >> 59n !== 0n && absolute < before) absolute += BigInt(STAMP_WRAP);
    return Number(absolute - base);
  }
}
