/**
 * How packets of a secure stream are sealed: bytes that a key and a count have changed, and a check over all of it.
 *
 * Idea: what is on the wire is never what was said, and whatever is changed, repeated or left out there is seen at the other end.
 * Not for: cryptography; a mixer that is fast enough for every packet of a simulation, and keeps nobody out by mathematics.
 */

/** A packet's bytes on the wire, and the check over them, its header and its place in the row. */
export interface SealedBytes {
  readonly bytes: Uint8Array;
  readonly check: number;
}

/** One key of a stream, as its words. */
export type CipherKey = readonly [number, number, number, number];

/** The words of a key: four that depend on all of its bytes. */
export function cipherKey(bytes: Uint8Array): CipherKey {
  const words: [number, number, number, number] = [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344];
  bytes.forEach((byte, i) => {
    const at = i & 3;
    words[at] = Math.imul(words[at]! ^ (byte + 1), 0x01000193) ^ (words[(at + 3) & 3]! >>> 7);
  });
  return words;
}

const mixed = (word: number): number => {
  const once = Math.imul(word ^ (word >>> 16), 0x21f0aaad);
  return Math.imul(once ^ (once >>> 15), 0x735a2d97) ^ (once >>> 11);
};

/** Seals or opens `bytes` in place; the check is over the sealed bytes. */
export function applyCipher(key: CipherKey, count: number, header: number, bytes: Uint8Array, seal: boolean): number {
  let [a, b, c, d] = key as [number, number, number, number];
  a ^= mixed(count);
  b ^= mixed(Math.floor(count / 2 ** 32) + 1);
  let check = mixed(header ^ d) ^ mixed(bytes.length ^ c);
  for (let at = 0; at < bytes.length; at += 4) {
    const turned = a ^ (a << 11);
    [a, b, c] = [b, c, d];
    d = d ^ (d >>> 19) ^ turned ^ (turned >>> 8);
    const stream = mixed(d + at);
    for (let i = at; i < Math.min(at + 4, bytes.length); i++) {
      // Never 0: no byte is on the wire as it is.
      const shift = 1 + (((stream >>> ((i & 3) * 8)) & 0xff) % 255);
      const sealed = seal ? bytes[i]! ^ shift : bytes[i]!;
      bytes[i]! ^= shift;
      check = Math.imul(check ^ sealed ^ (d & 0xffff00), 0x01000193);
    }
  }
  return mixed(check ^ a) >>> 0;
}
