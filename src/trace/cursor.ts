/**
 * A position in a file's metadata: numbers and strings in the file's own byte order.
 *
 * Idea: a small window over the file; every read is checked against the end first, so that a length field can never ask
 * for more than there is. Not for: event data, which is read in pages (cpu-stream.ts).
 */
import { damaged } from "./errors.ts";
import { type FileInput, readExactly } from "./input.ts";

const WINDOW_BYTES = 64 * 1024;
const LONGEST_NAME = 64 * 1024;
const decoder = new TextDecoder();

export class Cursor {
  readonly #input: FileInput;
  readonly #end: number;
  readonly #little: boolean;
  /** Where errors point, for bytes that were unpacked and have no offset of their own. */
  readonly #origin: number | undefined;
  #window: Uint8Array = new Uint8Array(0);
  #windowStart = 0;
  position: number;

  constructor(input: FileInput, start: number, end: number, littleEndian: boolean, origin?: number) {
    this.#input = input;
    this.#end = Math.min(end, input.size);
    this.#little = littleEndian;
    this.#origin = origin;
    this.position = start;
  }

  /** The offset in the file that an error about the current position names. */
  get offset(): number {
    return this.#origin ?? this.position;
  }

  /** Bytes up to the end of what this cursor may read. */
  get left(): number {
    return this.#end - this.position;
  }

  async bytes(length: number, what: string): Promise<Uint8Array> {
    if (length > this.left)
      throw damaged(
        this.#origin ?? Math.min(this.position, this.#end),
        `expected ${length} bytes of ${what}, there are ${Math.max(0, this.left)}`,
      );
    const from = this.position - this.#windowStart;
    if (from < 0 || from + length > this.#window.length) {
      const size = Math.min(this.left, Math.max(length, WINDOW_BYTES));
      this.#window = (await readExactly(this.#input, this.position, size, what)).slice();
      this.#windowStart = this.position;
    }
    const start = this.position - this.#windowStart;
    this.position += length;
    return this.#window.subarray(start, start + length);
  }

  skip(length: number, what: string): void {
    if (length > this.left)
      throw damaged(this.offset, `expected ${length} bytes of ${what}, there are ${Math.max(0, this.left)}`);
    this.position += length;
  }

  async #number(size: number, what: string): Promise<number> {
    const bytes = await this.bytes(size, what);
    let value = 0;
    for (let i = 0; i < size; i++) value = value * 256 + bytes[this.#little ? size - 1 - i : i]!;
    return value;
  }

  u8 = (what: string): Promise<number> => this.#number(1, what);
  u16 = (what: string): Promise<number> => this.#number(2, what);
  u32 = (what: string): Promise<number> => this.#number(4, what);
  /** Rounded above 2^53, where no offset or length of a real file is. */
  u64 = (what: string): Promise<number> => this.#number(8, what);

  /** A number of 64 bits as its two words, the low one first. */
  async words(what: string): Promise<[number, number]> {
    const [first, second] = [await this.u32(what), await this.u32(what)];
    return this.#little ? [first, second] : [second, first];
  }

  /** A string that ends in a zero byte. */
  async name(what: string): Promise<string> {
    const start = this.position;
    const taken: number[] = [];
    for (;;) {
      const byte = await this.u8(what);
      if (byte === 0) return decoder.decode(new Uint8Array(taken));
      taken.push(byte);
      if (taken.length > LONGEST_NAME)
        throw damaged(this.#origin ?? start, `expected the end of ${what} within ${LONGEST_NAME} bytes`);
    }
  }

  async text(length: number, what: string): Promise<string> {
    return decoder.decode(await this.bytes(length, what));
  }

  /** The next bytes must be `text` and a zero byte. */
  async expect(text: string): Promise<void> {
    const at = this.offset;
    const found = await this.text(text.length + 1, JSON.stringify(text));
    if (found !== `${text}\0`) throw damaged(at, `expected ${JSON.stringify(text)}, found ${JSON.stringify(found)}`);
  }
}

/** Bytes in memory as a file. */
export const fileOfBytes = (name: string, bytes: Uint8Array): FileInput => ({
  name,
  size: bytes.length,
  read: async (offset, length) => bytes.subarray(offset, offset + length),
});
