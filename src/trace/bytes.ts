/**
 * Bytes that grow, with numbers in one byte order: what the writers of trace.dat files are made of.
 *
 * Not for: reading (cursor.ts). Cost: amortised one copy a byte.
 */
const encoder = new TextEncoder();

export class Bytes {
  #bytes = new Uint8Array(4096);
  #view = new DataView(this.#bytes.buffer);
  readonly #little: boolean;
  length = 0;

  constructor(littleEndian: boolean) {
    this.#little = littleEndian;
  }

  #reserve(size: number): number {
    const at = this.length;
    this.length += size;
    if (this.length > this.#bytes.length) {
      const wider = new Uint8Array(this.length * 2);
      wider.set(this.#bytes);
      this.#bytes = wider;
      this.#view = new DataView(wider.buffer);
    }
    return at;
  }

  u8(value: number): this {
    const at = this.#reserve(1);
    this.#bytes[at] = value;
    return this;
  }

  u16(value: number): this {
    const at = this.#reserve(2);
    this.#view.setUint16(at, value, this.#little);
    return this;
  }

  u32(value: number): this {
    const at = this.#reserve(4);
    this.#view.setUint32(at, value, this.#little);
    return this;
  }

  u64(value: number | bigint): this {
    const at = this.#reserve(8);
    this.#view.setBigUint64(at, BigInt.asUintN(64, BigInt(value)), this.#little);
    return this;
  }

  raw(bytes: Uint8Array): this {
    const at = this.#reserve(bytes.length);
    this.#bytes.set(bytes, at);
    return this;
  }

  text(text: string): this {
    return this.raw(encoder.encode(text));
  }

  /** A length of 8 bytes and the text. */
  sized(text: string): this {
    const bytes = encoder.encode(text);
    return this.u64(bytes.length).raw(bytes);
  }

  fill(size: number): this {
    this.#reserve(size);
    return this;
  }

  setU64(at: number, value: number | bigint): void {
    this.#view.setBigUint64(at, BigInt(value), this.#little);
  }

  taken(): Uint8Array {
    return this.#bytes.subarray(0, this.length);
  }
}
