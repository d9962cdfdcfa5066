/**
 * SHA-256, and a keyed digest made of it: what measurements, certificates and sessions of a simulated device are digested with.
 *
 * Here because a run must be a function of its seed and go on without waiting, in browsers too: the platform's own
 * (WebCrypto) only answers later. The digests are real: a policy may hold those that any tool computes.
 * Not for: secrets of anybody; it takes no care about time.
 * Specified by: FIPS 180-4 (SHA-256), FIPS 198-1 (HMAC).
 */
import { joined } from "../../../layouts/spdm/index.ts";

const BLOCK = 64;
/** Fractions of the cube roots of the first 64 primes, and of the square roots of the first 8: 32 bits each. */
const CONSTANTS = new Uint32Array(64);
const START = new Uint32Array(8);
for (let candidate = 2, count = 0; count < 64; candidate++) {
  let isPrime = true;
  for (let divisor = 2; divisor * divisor <= candidate && isPrime; divisor++) isPrime = candidate % divisor !== 0;
  if (!isPrime) continue;
  CONSTANTS[count] = fraction(BigInt(candidate), 3n);
  if (count < 8) START[count] = fraction(BigInt(candidate), 2n);
  count++;
}

/** The first 32 bits behind the point of the `root`th root of `value`: exact, by whole numbers. */
function fraction(value: bigint, root: bigint): number {
  const scaled = value << (32n * root);
  let low = 0n;
  let high = 1n << 40n;
  while (high - low > 1n) {
    const middle = (low + high) >> 1n;
    if (middle ** root <= scaled) low = middle;
    else high = middle;
  }
  return Number(low & 0xffff_ffffn);
}

const words = new Uint32Array(64);
/** Valid for amounts of 1..31. */
const rotated = (word: number, amount: number): number => (word >>> amount) | (word << (32 - amount));

function compress(state: Uint32Array, view: DataView, at: number): void {
  for (let i = 0; i < 16; i++) words[i] = view.getUint32(at + 4 * i);
  for (let i = 16; i < 64; i++) {
    const [a, b] = [words[i - 15]!, words[i - 2]!];
    const first = rotated(a, 7) ^ rotated(a, 18) ^ (a >>> 3);
    const second = rotated(b, 17) ^ rotated(b, 19) ^ (b >>> 10);
    words[i] = (words[i - 16]! + first + words[i - 7]! + second) | 0;
  }
  let [a, b, c, d, e, f, g, h] = state as unknown as [number, number, number, number, number, number, number, number];
  for (let i = 0; i < 64; i++) {
    const sumE = rotated(e, 6) ^ rotated(e, 11) ^ rotated(e, 25);
    const first = (h + sumE + ((e & f) ^ (~e & g)) + CONSTANTS[i]! + words[i]!) | 0;
    const sumA = rotated(a, 2) ^ rotated(a, 13) ^ rotated(a, 22);
    const second = (sumA + ((a & b) ^ (a & c) ^ (b & c))) | 0;
    [h, g, f, e, d, c, b, a] = [g, f, e, (d + first) | 0, c, b, a, (first + second) | 0];
  }
  [a, b, c, d, e, f, g, h].forEach((word, i) => {
    state[i] = (state[i]! + word) | 0;
  });
}

/** The SHA-256 of all parts, one after the other. */
export function sha256(...parts: readonly (Uint8Array | readonly number[])[]): Uint8Array {
  const message = joined(...parts);
  const padded = new Uint8Array(Math.ceil((message.length + 9) / BLOCK) * BLOCK);
  padded.set(message);
  padded[message.length] = 0x80;
  const view = new DataView(padded.buffer);
  view.setUint32(padded.length - 8, Math.floor(message.length / 2 ** 29));
  view.setUint32(padded.length - 4, (message.length << 3) >>> 0);
  const state = START.slice();
  for (let at = 0; at < padded.length; at += BLOCK) compress(state, view, at);
  const digest = new DataView(new ArrayBuffer(32));
  state.forEach((word, i) => {
    digest.setUint32(4 * i, word);
  });
  return new Uint8Array(digest.buffer);
}

/** The HMAC-SHA-256 of all parts under a key. */
export function keyed(key: Uint8Array, ...parts: readonly (Uint8Array | readonly number[])[]): Uint8Array {
  const block = new Uint8Array(BLOCK);
  block.set(key.length > BLOCK ? sha256(key) : key);
  const inner = sha256(
    block.map((byte) => byte ^ 0x36),
    ...parts,
  );
  return sha256(
    block.map((byte) => byte ^ 0x5c),
    inner,
  );
}

/** Are the bytes the same? Looks at all of them whatever it finds, so that how long it takes does not say where they differ. */
export function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  let difference = 0;
  for (let i = 0; i < a.length; i++) difference |= a[i]! ^ b[i]!;
  return difference === 0;
}

/** Text as bytes. */
export const textBytes = (text: string): Uint8Array => new TextEncoder().encode(text);
