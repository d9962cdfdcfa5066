/**
 * Names of the kernel's functions by address, from the symbol table that a trace.dat file carries.
 *
 * Idea: addresses of the kernel differ in their lower 48 bits only, which a double holds exactly; the names stay where they
 * lie in the text until one is asked for.
 * Promises: linear in the table, but for one sort; an address that no symbol is near is given as the number it is.
 * Specified by: the lines of /proc/kallsyms, `ADDRESS TYPE NAME [MODULE]`.
 */

const NEWLINE = 10;
const SPACE = 32;
const TWO_32 = 0x1_0000_0000;
/** No function is longer: an address further behind a symbol belongs to one that is not in the table. */
const LONGEST_FUNCTION = 1 << 20;

const decoder = new TextDecoder();

const digitOf = (byte: number): number =>
  byte >= 48 && byte <= 57 ? byte - 48 : byte >= 97 && byte <= 102 ? byte - 87 : -1;

export class Symbols {
  readonly #text: Uint8Array;
  /** Lower 48 bits of the addresses, ascending. */
  readonly #addresses: Float64Array;
  /** Where each name begins in the text. */
  readonly #names: Uint32Array;

  constructor(text: Uint8Array) {
    this.#text = text;
    const found: { readonly address: number; readonly name: number }[] = [];
    for (let at = 0; at < text.length; ) {
      const end = text.indexOf(NEWLINE, at);
      const next = end < 0 ? text.length : end + 1;
      let address = 0;
      let digits = 0;
      for (let digit = digitOf(text[at]!); digit >= 0 && at < next; digit = digitOf(text[++at] ?? 0)) {
        address = (address % 2 ** 44) * 16 + digit;
        digits++;
      }
      // ` t name`: addresses of zeros are those of a kernel that hides them
      if (digits > 0 && text[at] === SPACE && text[at + 2] === SPACE && address > 0)
        found.push({ address, name: at + 3 });
      at = next;
    }
    found.sort((a, b) => a.address - b.address);
    this.#addresses = Float64Array.from(found, ({ address }) => address);
    this.#names = Uint32Array.from(found, ({ name }) => name);
  }

  /** The function at an address, given as its two words. */
  nameAt(low: number, high: number): string {
    const address = (high & 0xffff) * TWO_32 + low;
    let [first, last] = [0, this.#addresses.length];
    while (first < last) {
      const middle = (first + last) >>> 1;
      if (this.#addresses[middle]! <= address) first = middle + 1;
      else last = middle;
    }
    const index = first - 1;
    if (index < 0 || address - this.#addresses[index]! > LONGEST_FUNCTION) return addressText(low, high);
    const from = this.#names[index]!;
    let to = from;
    while (to < this.#text.length && this.#text[to]! > SPACE) to++;
    return decoder.decode(this.#text.subarray(from, to));
  }
}

/** An address as a frame without a name. */
export const addressText = (low: number, high: number): string =>
  `0x${(high * TWO_32 === 0 ? "" : high.toString(16)) + (high === 0 ? low.toString(16) : low.toString(16).padStart(8, "0"))}`;
