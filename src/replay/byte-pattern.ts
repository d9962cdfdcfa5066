/**
 * Which byte belongs at which address: random bytes that repeat so late that no neighbour is taken for another.
 *
 * Idea: one buffer of random words; a request and an address choose the place in it. Two addresses of one request, and one
 * address in two requests, hold different bytes. Not for: more than {@link CHUNK} bytes at once.
 */
import type { Random } from "../base/index.ts";

/** Bytes at once. */
export const CHUNK = 65_536;
/** Words after which the pattern repeats: a prime, so that no two of 2^18 neighbouring pages hold the same. */
const PERIOD_WORDS = 262_139;

export class BytePattern {
  readonly #bytes = new Uint8Array(PERIOD_WORDS * 4 + CHUNK + 4);

  constructor(random: Random) {
    const words = new Uint32Array(this.#bytes.buffer);
    for (let i = 0; i < words.length; i++) words[i] = i < PERIOD_WORDS ? random.bits() : words[i - PERIOD_WORDS]!;
  }

  /** What belongs at [phys, + length) in pattern `id`, at most {@link CHUNK} bytes. A view: it is not to be changed. */
  at(id: number, phys: number, length: number): Uint8Array {
    const start = ((((id * 977) % PERIOD_WORDS) + Math.floor(phys / 4)) % PERIOD_WORDS) * 4 + (phys % 4);
    return this.#bytes.subarray(start, start + length);
  }
}

/** Calls `visit` for each place at which two arrays of one length differ. */
export function eachDifference(expected: Uint8Array, found: Uint8Array, visit: (at: number) => void): void {
  const { length } = expected;
  let at = 0;
  if (expected.byteOffset % 4 === 0 && found.byteOffset % 4 === 0) {
    const a = new Uint32Array(expected.buffer, expected.byteOffset, length >> 2);
    const b = new Uint32Array(found.buffer, found.byteOffset, length >> 2);
    while (at < a.length && a[at] === b[at]) at++;
    at *= 4;
  }
  for (; at < length; at++) if (expected[at] !== found[at]) visit(at);
}
