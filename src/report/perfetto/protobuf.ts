/**
 * Writes protocol buffers: just what a trace file needs.
 *
 * Idea: one growing buffer; a message inside a message gets one byte for its length, filled in when it ends: almost all are shorter
 * than 128 bytes, and a longer one is moved up. What is finished is handed to `emit` in large pieces, so memory is flat.
 * Specified by: the Protocol Buffers encoding (protobuf.dev/programming-guides/encoding).
 */
const FLUSH_BYTES = 1 << 20;
const VARINT = 0;
const BYTES = 2;
/** Bytes that the length of a message may have: the longest is 2^28 - 1 bytes. */
const LENGTH_BYTES = 4;
const encoder = new TextEncoder();

export class ProtoWriter {
  readonly #emit: (bytes: Uint8Array) => void;
  #bytes = new Uint8Array(FLUSH_BYTES * 2);
  #at = 0;
  #depth = 0;

  /** `emit` gets bytes that are valid until it returns. */
  constructor(emit: (bytes: Uint8Array) => void) {
    this.#emit = emit;
  }

  /** A whole number from 0 to 2^64 - 1; numbers up to 2^53. */
  uint(field: number, value: number | bigint): void {
    this.#reserve(20);
    this.#varint(field * 8 + VARINT);
    if (typeof value === "bigint") this.#varintOf(BigInt.asUintN(64, value));
    else this.#varint(value);
  }

  string(field: number, text: string): void {
    this.#reserve(20 + text.length * 3);
    this.#varint(field * 8 + BYTES);
    const start = this.#at + 1;
    const { written } = encoder.encodeInto(text, this.#bytes.subarray(start));
    this.#end(this.#at, written);
  }

  /** Bytes as they are. */
  bytes(field: number, value: Uint8Array): void {
    this.#reserve(20 + value.length);
    this.#varint(field * 8 + BYTES);
    this.#varint(value.length);
    this.#bytes.set(value, this.#at);
    this.#at += value.length;
    if (this.#depth === 0 && this.#at >= FLUSH_BYTES) this.finish();
  }

  /** A message that `fill` writes. */
  message(field: number, fill: () => void): void {
    this.#reserve(20);
    this.#varint(field * 8 + BYTES);
    const lengthAt = this.#at++;
    this.#depth++;
    fill();
    this.#depth--;
    this.#end(lengthAt, this.#at - lengthAt - 1);
    if (this.#depth === 0 && this.#at >= FLUSH_BYTES) this.finish();
  }

  /** Hands on what is left. */
  finish(): void {
    this.#emit(this.#bytes.subarray(0, this.#at));
    this.#at = 0;
  }

  /** A field of `length` bytes stands one byte behind `lengthAt`: says how long it is, with as many bytes as that takes. */
  #end(lengthAt: number, length: number): void {
    const more = length < 2 ** 7 ? 0 : length < 2 ** 14 ? 1 : length < 2 ** 21 ? 2 : 3;
    if (more > 0) {
      this.#reserve(LENGTH_BYTES);
      this.#bytes.copyWithin(lengthAt + 1 + more, lengthAt + 1, lengthAt + 1 + length);
    }
    this.#at = lengthAt;
    this.#varint(length);
    this.#at += length;
  }

  #varint(value: number): void {
    let rest = value;
    while (rest >= 0x80) {
      this.#bytes[this.#at++] = (rest % 0x80) | 0x80;
      rest = Math.floor(rest / 0x80);
    }
    this.#bytes[this.#at++] = rest;
  }

  #varintOf(value: bigint): void {
    let rest = value;
    for (; rest >= 0x80n; rest >>= 7n) this.#bytes[this.#at++] = Number(rest & 0x7fn) | 0x80;
    this.#bytes[this.#at++] = Number(rest);
  }

  #reserve(size: number): void {
    if (this.#at + size <= this.#bytes.length) return;
    const wider = new Uint8Array((this.#at + size) * 2);
    wider.set(this.#bytes.subarray(0, this.#at));
    this.#bytes = wider;
  }
}
