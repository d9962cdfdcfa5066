/**
 * Records put into the order of their times.
 *
 * Idea: perf writes the ring buffers of the CPUs one after another, round by round; within a buffer times ascend, between
 * buffers they do not. When a round ends, nothing that is older than the newest record of the round before can still come.
 * Promises: equal times keep the file's order. Memory is two rounds; where a file marks no rounds, a bounded number of bytes,
 * after which the oldest half goes on. Specified by: PERF_RECORD_FINISHED_ROUND.
 */

const HOST_IS_LITTLE = new Uint8Array(new Uint32Array([1]).buffer)[0] === 1;
/** More is not held back: the oldest half goes on. */
const MOST_BYTES = 256 * 1024 * 1024;
const FIRST_BYTES = 1 << 20;
const FIRST_RECORDS = 4096;

export class TimeOrder {
  /** The records, each at a multiple of 8; `words` are the same bytes in the host's order. */
  bytes: Uint8Array;
  words: Uint32Array;
  readonly #isSwapped: boolean;
  #used = 0;
  #count = 0;
  #times = new Float64Array(FIRST_RECORDS);
  /** Start and end of each, and its type. */
  #places = new Uint32Array(FIRST_RECORDS * 3);
  #newest = 0;
  #safe = -1;

  constructor(littleEndian: boolean) {
    this.#isSwapped = littleEndian !== HOST_IS_LITTLE;
    const buffer = new ArrayBuffer(FIRST_BYTES);
    this.bytes = new Uint8Array(buffer);
    this.words = this.#isSwapped ? new Uint32Array(FIRST_BYTES >>> 2) : new Uint32Array(buffer);
  }

  /** Keeps a copy of the record in `bytes` [start, end). */
  add(type: number, timeNs: number, bytes: Uint8Array, start: number, end: number): void {
    const length = end - start;
    const at = this.#used;
    const next = (at + length + 7) & ~7;
    if (next > this.bytes.length) this.#grow(next);
    this.bytes.set(bytes.subarray(start, end), at);
    if (this.#isSwapped) this.#swap(at, next);
    if (this.#count === this.#times.length) this.#growList();
    this.#times[this.#count] = timeNs;
    this.#places[this.#count * 3] = at;
    this.#places[this.#count * 3 + 1] = at + length;
    this.#places[this.#count * 3 + 2] = type;
    this.#count++;
    this.#used = next;
    if (timeNs > this.#newest) this.#newest = timeNs;
  }

  /** The words of bytes [from, to) in the host's order. */
  #swap(from: number, to: number): void {
    for (let at = from; at < to; at += 4) {
      const [a, b, c, d] = [this.bytes[at]!, this.bytes[at + 1]!, this.bytes[at + 2]!, this.bytes[at + 3]!];
      // The bytes are of the other order than the host's.
      this.words[at >>> 2] = HOST_IS_LITTLE
        ? (a << 24) | (b << 16) | (c << 8) | d
        : a | (b << 8) | (c << 16) | (d << 24);
    }
  }

  /** A round ends: the records that nothing can come before any more, in order. Valid until the next `add`. */
  endRound(): Ordered {
    const ordered = this.#upTo(this.#safe);
    this.#safe = this.#newest;
    return ordered;
  }

  /** The oldest half, where too much is held back. */
  relieve(): Ordered | undefined {
    if (this.#used < MOST_BYTES) return undefined;
    const sorted = this.#times.slice(0, this.#count).sort();
    return this.#upTo(sorted[sorted.length >>> 1]!);
  }

  /** The file ends: all that is left, in order. */
  rest(): Ordered {
    return this.#upTo(Number.POSITIVE_INFINITY);
  }

  #upTo(limit: number): Ordered {
    const ready: number[] = [];
    for (let i = 0; i < this.#count; i++) if (this.#times[i]! <= limit) ready.push(i);
    const times = this.#times;
    ready.sort((a, b) => times[a]! - times[b]! || a - b);
    return { ready, times, places: this.#places, release: () => this.#release(limit) };
  }

  /** Moves what is left to the front. */
  #release(limit: number): void {
    let used = 0;
    let count = 0;
    for (let i = 0; i < this.#count; i++) {
      if (this.#times[i]! <= limit) continue;
      const [start, end, type] = [this.#places[i * 3]!, this.#places[i * 3 + 1]!, this.#places[i * 3 + 2]!];
      const next = (used + end - start + 7) & ~7;
      this.bytes.copyWithin(used, start, end);
      if (this.#isSwapped) this.words.copyWithin(used >>> 2, start >>> 2, (start + next - used) >>> 2);
      this.#times[count] = this.#times[i]!;
      this.#places[count * 3] = used;
      this.#places[count * 3 + 1] = used + end - start;
      this.#places[count * 3 + 2] = type;
      count++;
      used = next;
    }
    this.#count = count;
    this.#used = used;
  }

  #grow(least: number): void {
    const size = (least * 2 + 7) & ~7;
    const buffer = new ArrayBuffer(size);
    const bytes = new Uint8Array(buffer);
    bytes.set(this.bytes.subarray(0, this.#used));
    this.bytes = bytes;
    if (this.#isSwapped) {
      const words = new Uint32Array(size >>> 2);
      words.set(this.words.subarray(0, this.#used >>> 2));
      this.words = words;
    } else this.words = new Uint32Array(buffer);
  }

  #growList(): void {
    const times = new Float64Array(this.#times.length * 2);
    times.set(this.#times);
    this.#times = times;
    const places = new Uint32Array(times.length * 3);
    places.set(this.#places);
    this.#places = places;
  }
}

/** Records in order: indices into `times`, and three numbers each in `places` (start, end, type). */
export interface Ordered {
  readonly ready: readonly number[];
  readonly times: Float64Array;
  readonly places: Uint32Array;
  /** To be called when the records were read. */
  release(): void;
}
