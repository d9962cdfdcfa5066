/**
 * Arena: table memory as one buffer of 4 KiB frames, lowest free first.
 *
 * Idea: a frame is 1024 words of one `Int32Array` (unsigned words would make every masked read a double); page `basePage + n` is frame n. An entry is stored as two words, the
 * high one first: measured, that costs 1.3 ns, a 64-bit store through a scratch buffer 4.7 and a bigint 12.8.
 * Promises: an allocation takes the lowest free naturally aligned run and is zeroed; a failed one changes nothing.
 * Not for: sharing between threads while it grows; a shared arena is made in its full size.
 */
import type { PhysPage } from "../base/index.ts";
import type { TableMemory } from "../platform/index.ts";
import { badArena } from "./errors.ts";

/** Where an arena lies in physical memory, and how large it may become. */
export interface ArenaOptions {
  /** Physical page of the first frame; a multiple of 16. */
  readonly basePage: PhysPage;
  /** Frames at most, up to 2^19; 65,536 (256 MiB of tables) unless said. */
  readonly capacityFrames?: number;
  /** A SharedArrayBuffer, for a reader in another thread. */
  readonly shared?: boolean;
}

const FRAME_WORDS = 1024;

/** Memory for page tables: frames of 4 KiB over one buffer that grows, given out in powers of two. */
export class Arena implements TableMemory {
  declare readonly basePage: PhysPage;
  /** Frames that it can grow to. */
  declare readonly capacityFrames: number;
  /** All words; replaced when the arena grows, so read it again after an allocation. */
  declare words: Int32Array; // declared, not defined: see tree.ts
  framesInUse = 0;
  /** Allocations until one fails on purpose: 1 is the next. 0: none. */
  failAt = 0;
  #used: Uint8Array;
  /** No frame below this one is free. */
  #lowestFree = 0;

  /** Takes room for its first frames at once. @throws DmaError ERR_DMA_TABLE_ARENA (EINVAL) */
  constructor(options: ArenaOptions) {
    const capacity = options.capacityFrames ?? 65_536;
    if (!(Number.isInteger(capacity) && capacity >= 1 && capacity <= 2 ** 19) || options.basePage % 16 !== 0)
      throw badArena(options.basePage, capacity);
    this.basePage = options.basePage;
    this.capacityFrames = capacity;
    const frames = options.shared ? capacity : Math.min(capacity, 16);
    const bytes = frames * FRAME_WORDS * 4;
    this.words = new Int32Array(options.shared ? new SharedArrayBuffer(bytes) : new ArrayBuffer(bytes));
    this.#used = new Uint8Array(frames);
  }

  /** Takes 2^order frames, zeroed: the first frame, or -1 when there are none. */
  allocate(order = 0): number {
    if (this.failAt > 0 && --this.failAt === 0) return -1;
    const lowest = this.#lowestFree;
    if (order === 0 && this.#used[lowest] === 0) {
      this.#used[lowest] = 1;
      this.words.fill(0, lowest * FRAME_WORDS, (lowest + 1) * FRAME_WORDS);
      this.framesInUse++;
      this.#lowestFree = lowest + 1;
      return lowest;
    }
    const run = 1 << order;
    let frame = Math.ceil(this.#lowestFree / run) * run;
    search: while (frame + run <= this.#used.length) {
      for (let i = 0; i < run; i++)
        if (this.#used[frame + i] !== 0) {
          frame += run;
          continue search;
        }
      break;
    }
    while (frame + run > this.#used.length) if (!this.#grow()) return -1;
    this.#used.fill(1, frame, frame + run);
    this.words.fill(0, frame * FRAME_WORDS, (frame + run) * FRAME_WORDS);
    this.framesInUse += run;
    if (frame <= this.#lowestFree) this.#lowestFree = frame + run;
    return frame;
  }

  /** Gives 2^order frames back. Never fails. */
  release(frame: number, order = 0): void {
    const run = 1 << order;
    if (order === 0) this.#used[frame] = 0;
    else this.#used.fill(0, frame, frame + run);
    this.framesInUse -= run;
    if (frame < this.#lowestFree) this.#lowestFree = frame;
  }

  low(table: PhysPage, index: number): number {
    return this.words[(table - this.basePage) * FRAME_WORDS + index * 2] ?? 0;
  }

  high(table: PhysPage, index: number): number {
    return this.words[(table - this.basePage) * FRAME_WORDS + index * 2 + 1] ?? 0;
  }

  store(table: PhysPage, index: number, low: number, high: number): void {
    const at = (table - this.basePage) * FRAME_WORDS + index * 2;
    this.words[at + 1] = high;
    this.words[at] = low;
  }

  /** Replaces the live entry at word `at` by one 64-bit store, so that a reader sees the old one or the new one. */
  replace(at: number, low: number, high: number): void {
    const entry = new BigUint64Array(this.words.buffer, at * 4, 1);
    entry[0] = (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0);
  }

  #grow(): boolean {
    const frames = Math.min(this.capacityFrames, this.#used.length * 2);
    if (frames === this.#used.length) return false;
    const words = new Int32Array(frames * FRAME_WORDS);
    words.set(this.words);
    this.words = words;
    const used = new Uint8Array(frames);
    used.set(this.#used);
    this.#used = used;
    return true;
  }
}
