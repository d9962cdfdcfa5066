/**
 * Strings by number: each distinct string once, found by its bytes without making a string first.
 *
 * Idea: an open-addressed table over the bytes themselves; a JavaScript string is made only when a new one turns up.
 * Promises: an index never changes its meaning, and memory is bounded: past a million strings or 64 MiB of them, a new
 * string gets the index of {@link NOT_KEPT}. Cost: about 20 ns for a device name that is known.
 */

/** Stands for strings that came after the table was full. */
export const NOT_KEPT = "(not kept: too many different strings)";

const MOST_STRINGS = 1 << 20;
const MOST_BYTES = 64 * 1024 * 1024;
const decoder = new TextDecoder();
const encoder = new TextEncoder();

export class StringTable {
  /** The strings by index. Grows. */
  readonly list: string[] = [];
  #slots = new Int32Array(1024).fill(-1);
  #hashes = new Int32Array(512);
  /** String i lies at [#starts[i], #starts[i + 1]) of #arena. */
  #starts = new Uint32Array(513);
  #arena = new Uint8Array(8192);
  /** Index of {@link NOT_KEPT}; -1: the table was never full. */
  #notKept = -1;

  intern(text: string): number {
    const bytes = encoder.encode(text);
    return this.internBytes(bytes, 0, bytes.length);
  }

  /** The index of bytes [start, end) as UTF-8. */
  internBytes(bytes: Uint8Array, start: number, end: number): number {
    let hash = 0x811c9dc5;
    for (let i = start; i < end; i++) hash = Math.imul(hash ^ bytes[i]!, 0x01000193);
    hash ^= hash >>> 15;
    const slots = this.#slots;
    const mask = slots.length - 1;
    let slot = hash & mask;
    for (let index = slots[slot]!; index >= 0; index = slots[slot]!) {
      if (this.#hashes[index] === hash && this.#equals(index, bytes, start, end)) return index;
      slot = (slot + 1) & mask;
    }
    return this.#add(hash, slot, bytes, start, end);
  }

  /** The length of string `index` where bytes at `at` begin with it; else 0. */
  matchAt(index: number, bytes: Uint8Array, at: number): number {
    const from = this.#starts[index]!;
    const length = this.#starts[index + 1]! - from;
    const arena = this.#arena;
    for (let i = 0; i < length; i++) if (arena[from + i] !== bytes[at + i]) return 0;
    return length;
  }

  #equals(index: number, bytes: Uint8Array, start: number, end: number): boolean {
    const from = this.#starts[index]!;
    const length = end - start;
    if (this.#starts[index + 1]! - from !== length) return false;
    const arena = this.#arena;
    for (let i = 0; i < length; i++) if (arena[from + i] !== bytes[start + i]) return false;
    return true;
  }

  #add(hash: number, slot: number, bytes: Uint8Array, start: number, end: number): number {
    const index = this.list.length;
    const from = this.#starts[index]!;
    const full = index >= MOST_STRINGS || from + (end - start) > MOST_BYTES;
    if (full && this.#notKept >= 0) return this.#notKept;
    if (full) this.#notKept = index;
    const kept = full ? encoder.encode(NOT_KEPT) : bytes.subarray(start, end);
    if (index + 1 === this.#hashes.length) {
      const hashes = new Int32Array(this.#hashes.length * 2);
      hashes.set(this.#hashes);
      this.#hashes = hashes;
      const starts = new Uint32Array(hashes.length + 1);
      starts.set(this.#starts);
      this.#starts = starts;
    }
    if (from + kept.length > this.#arena.length) {
      const arena = new Uint8Array(Math.max(this.#arena.length * 2, from + kept.length));
      arena.set(this.#arena);
      this.#arena = arena;
    }
    this.#arena.set(kept, from);
    this.#starts[index + 1] = from + kept.length;
    this.#hashes[index] = hash;
    this.#slots[slot] = index;
    this.list.push(decoder.decode(kept));
    if (this.list.length * 2 > this.#slots.length) this.#rehash();
    return index;
  }

  #rehash(): void {
    const slots = new Int32Array(this.#slots.length * 2).fill(-1);
    const mask = slots.length - 1;
    for (let index = 0; index < this.list.length; index++) {
      let slot = this.#hashes[index]! & mask;
      while (slots[slot]! >= 0) slot = (slot + 1) & mask;
      slots[slot] = index;
    }
    this.#slots = slots;
  }
}
