/**
 * Values in the payload of a text line, read from the bytes into two words each.
 *
 * Idea: a position that moves over one line; nothing becomes a string before the string table has not seen it. Each
 * method answers whether the value is there; `low` and `high` then hold it. A line ends in a newline, and no value holds
 * one, so nothing has to look for the end of the line first.
 */
import { ATTRIBUTE_BITS, DIRECTION_NAMES } from "../catalogue.ts";
import type { Columns } from "../columns.ts";
import type { StringTable } from "../string-table.ts";
import { SHAPES, STEP, type Template } from "./print-formats.ts";

const NEWLINE = 10;
const RETURN = 13;
const SPACE = 32;
const QUOTE = 34;
const OPEN_PAREN = 40;
const CLOSE_PAREN = 41;
const STAR = 42;
const COMMA = 44;
const MINUS = 45;
const SLASH = 47;
const ZERO = 48;
const UNDERSCORE = 95;
const SMALL_X = 120;
const OPEN_BRACE = 123;
const BAR = 124;
const CLOSE_BRACE = 125;
const TWO_32 = 0x1_0000_0000;
/** Decimal digits that a double holds exactly. */
const EXACT_DIGITS = 15;

const DIGITS: Int8Array = new Int8Array(256).fill(-1);
for (let digit = 0; digit < 10; digit++) DIGITS[ZERO + digit] = digit;
for (let digit = 10; digit < 16; digit++) DIGITS[87 + digit] = DIGITS[55 + digit] = digit;

const encoder = new TextEncoder();
const decoder = new TextDecoder();
const DIRECTIONS = DIRECTION_NAMES.map((name) => encoder.encode(name));
const ATTRIBUTES = Object.entries(ATTRIBUTE_BITS).map(([name, bit]) => ({ name: encoder.encode(name), bit }));
const TRUNCATED = encoder.encode(" [TRUNCATED]");
const FORCE = encoder.encode("FORCE");
const NORMALS = [encoder.encode("NORMAL"), encoder.encode("NO_FORCE")];
const NIL = [encoder.encode("(nil)"), encoder.encode("(null)")];

const WORD = SHAPES.indexOf("word");
const QUOTED = SHAPES.indexOf("quoted");
const HEX = SHAPES.indexOf("hex");
const DECIMAL = SHAPES.indexOf("decimal");
const NUMBER = SHAPES.indexOf("number");
const POINTER = SHAPES.indexOf("pointer");
const DIRECTION = SHAPES.indexOf("direction");
const ATTRS = SHAPES.indexOf("attrs");
const LIST = SHAPES.indexOf("list");
const TRUNCATION = SHAPES.indexOf("truncated");
const FORCED = SHAPES.indexOf("forced");

export class ValueReader {
  /** Text that ends in a newline. */
  bytes: Uint8Array = new Uint8Array(0);
  at = 0;
  low = 0;
  high = 0;
  /** A word of the payload that is not known, [unknownFrom, unknownTo): an attribute. Empty where there was none. */
  unknownFrom = 0;
  unknownTo = 0;
  /** The function behind the payload, [siteFrom, siteTo), that perf prints with `-F ip,sym`. Empty where there is none. */
  siteFrom = 0;
  siteTo = 0;
  /** The string of the last word: as a rule the next one is the same device. */
  #lastWord = 0;

  /**
   * Reads the payload at `at` by `template` behind the words in use. False: the line is of another form. True: `at` is
   * the offset of the line's newline.
   */
  match(template: Template, at: number, columns: Columns, strings: StringTable): boolean {
    const bytes = this.bytes;
    const used = columns.used;
    const { steps, fields, literals } = template;
    columns.used = used + fields.length * 2;
    let literal = 0;
    this.at = at;
    this.unknownTo = this.unknownFrom = 0;
    this.siteTo = this.siteFrom = 0;
    for (let step = 0; step < steps.length; step += STEP) {
      const literalEnd = steps[step]!;
      let position = this.at;
      while (literal < literalEnd && bytes[position] === literals[literal]) {
        literal++;
        position++;
      }
      this.at = position;
      if (literal < literalEnd || !this.#value(steps[step + 1]!, columns, strings)) {
        columns.used = used;
        return false;
      }
      const field = steps[step + 2]!;
      if (field >= 0) {
        columns.words[used + field * 2] = this.low;
        columns.words[used + field * 2 + 1] = this.high;
      }
    }
    while (bytes[this.at] === SPACE || bytes[this.at] === RETURN) this.at++;
    if (bytes[this.at] === NEWLINE || this.#tail()) return true;
    columns.used = used;
    return false;
  }

  /** What may stand behind a payload: the end of a comment, or the place of the call that perf prints there. */
  #tail(): boolean {
    const bytes = this.bytes;
    let at = this.at;
    if (bytes[at] === STAR && bytes[at + 1] === SLASH) {
      at += 2;
      while (bytes[at] === SPACE || bytes[at] === RETURN) at++;
      this.at = at;
      return bytes[at] === NEWLINE;
    }
    const from = at;
    while (DIGITS[bytes[at]!]! >= 0) at++;
    if (at - from < 8 || at - from > 16 || bytes[at] !== SPACE) return false;
    this.siteFrom = ++at;
    while (bytes[at]! > SPACE) at++;
    this.siteTo = at;
    while (bytes[at] !== NEWLINE) at++;
    this.at = at;
    return this.siteTo > this.siteFrom;
  }

  /** Steps over `literal` where it stands next. */
  #skip(literal: Uint8Array): boolean {
    const at = this.at;
    const bytes = this.bytes;
    for (let i = 0; i < literal.length; i++) if (bytes[at + i] !== literal[i]) return false;
    this.at = at + literal.length;
    return true;
  }

  #value(shape: number, columns: Columns, strings: StringTable): boolean {
    if (shape === HEX) return this.#hex();
    if (shape === DECIMAL) return this.#decimal();
    if (shape === WORD) return this.#word(strings);
    if (shape === DIRECTION) return this.#direction();
    if (shape === ATTRS) return this.#attrs();
    if (shape === QUOTED) return this.#quoted(strings);
    if (shape === POINTER) return this.#pointer();
    if (shape === NUMBER) return this.#number();
    if (shape === LIST) return this.#list(columns);
    if (shape === TRUNCATION) return this.#flag(TRUNCATED, undefined);
    if (shape === FORCED) return this.#flag(FORCE, NORMALS);
    return this.#site();
  }

  /** 1 for `yes`; 0 for `no`, or for nothing where there is no `no`. */
  #flag(yes: Uint8Array, no: readonly Uint8Array[] | undefined): boolean {
    this.low = this.#skip(yes) ? 1 : 0;
    this.high = 0;
    return this.low === 1 || no === undefined || no.some((word) => this.#skip(word));
  }

  /** Hexadecimal of 1 to 16 digits, with or without 0x. */
  #hex(): boolean {
    const bytes = this.bytes;
    let at = this.at;
    if (bytes[at] === ZERO && bytes[at + 1] === SMALL_X) at += 2;
    const from = at;
    let low = 0;
    let high = 0;
    for (;;) {
      const digit = DIGITS[bytes[at]!]!;
      if (digit < 0) break;
      high = (high << 4) | (low >>> 28);
      low = (low << 4) | digit;
      at++;
    }
    if (at === from || at - from > 16) return false;
    this.low = low >>> 0;
    this.high = high >>> 0;
    this.at = at;
    return true;
  }

  /** Decimal of up to 64 bits. */
  #decimal(): boolean {
    const bytes = this.bytes;
    const from = this.at;
    let at = from;
    let value = 0;
    for (;;) {
      const digit = bytes[at]! - ZERO;
      if (digit < 0 || digit > 9) break;
      value = value * 10 + digit;
      at++;
    }
    // `0x…`: a probe that prints in hexadecimal.
    if (at === from + 1 && value === 0 && bytes[at] === SMALL_X) return this.#hex();
    if (at === from || at - from > 20) return false;
    this.at = at;
    if (at - from <= EXACT_DIGITS) {
      this.low = value >>> 0;
      this.high = value < TWO_32 ? 0 : Math.floor(value / TWO_32);
      return true;
    }
    const exact = BigInt(decoder.decode(bytes.subarray(from, at)));
    this.low = Number(exact & 0xffff_ffffn);
    this.high = Number((exact >> 32n) & 0xffff_ffffn);
    return true;
  }

  #number(): boolean {
    if (this.bytes[this.at] !== MINUS) return this.#decimal();
    this.at++;
    if (!this.#decimal()) return false;
    this.high = ~this.high + (this.low === 0 ? 1 : 0);
    this.low = -this.low | 0;
    return true;
  }

  #pointer(): boolean {
    while (this.bytes[this.at] === SPACE) this.at++; // older kernels set (null) to the right
    if (this.bytes[this.at] !== OPEN_PAREN) return this.#hex();
    this.low = 0;
    this.high = 0;
    return NIL.some((nil) => this.#skip(nil));
  }

  #word(strings: StringTable): boolean {
    const bytes = this.bytes;
    const length = strings.matchAt(this.#lastWord, bytes, this.at);
    if (length > 0 && bytes[this.at + length]! <= SPACE) {
      this.low = this.#lastWord;
      this.high = 0;
      this.at += length;
      return true;
    }
    const from = this.at;
    let at = from;
    while (bytes[at]! > SPACE) at++;
    this.low = this.#lastWord = strings.internBytes(bytes, from, at);
    this.high = 0;
    this.at = at;
    return true;
  }

  #quoted(strings: StringTable): boolean {
    const bytes = this.bytes;
    if (bytes[this.at] !== QUOTE) return this.#word(strings);
    const from = this.at + 1;
    const length = strings.matchAt(this.#lastWord, bytes, from);
    let at = from + length;
    if (length === 0 || bytes[at] !== QUOTE) {
      at = from;
      while (bytes[at] !== QUOTE && bytes[at] !== NEWLINE) at++;
      if (bytes[at] !== QUOTE) return false;
      this.#lastWord = strings.internBytes(bytes, from, at);
    }
    this.low = this.#lastWord;
    this.high = 0;
    this.at = at + 1;
    return true;
  }

  #direction(): boolean {
    for (let direction = 0; direction < DIRECTIONS.length; direction++)
      if (this.bytes[this.at] === DIRECTIONS[direction]![0]) {
        this.low = direction;
        this.high = 0;
        return this.#skip(DIRECTIONS[direction]!);
      }
    return this.#decimal();
  }

  #attrs(): boolean {
    let low = 0;
    let high = 0;
    while (this.bytes[this.at]! > SPACE) {
      if (DIGITS[this.bytes[this.at]!]! >= 0 && this.bytes[this.at]! < 58) {
        if (!this.#hex()) return false; // bits without a name
        low |= this.low;
        high |= this.high;
      } else {
        const bit = this.#attribute();
        if (bit >= 0) low |= 1 << bit;
        else if (!this.#unknownAttribute()) return false;
      }
      if (this.bytes[this.at] === BAR) this.at++;
      else break;
    }
    this.low = low >>> 0;
    this.high = high >>> 0;
    return true;
  }

  #attribute(): number {
    for (const { name, bit } of ATTRIBUTES) {
      const from = this.at;
      if (!this.#skip(name)) continue;
      const next = this.bytes[this.at]!;
      if (next <= SPACE || next === BAR) return bit;
      this.at = from; // only the beginning of a longer name
    }
    return -1;
  }

  /** Steps over the name of an attribute that is not known: a newer kernel's. */
  #unknownAttribute(): boolean {
    const bytes = this.bytes;
    const from = this.at;
    let at = from;
    while (
      (bytes[at]! >= 65 && bytes[at]! <= 90) ||
      bytes[at] === UNDERSCORE ||
      (bytes[at]! >= ZERO && bytes[at]! < 58)
    )
      at++;
    if (at === from || (bytes[at]! > SPACE && bytes[at] !== BAR)) return false;
    this.unknownFrom = from;
    this.unknownTo = this.at = at;
    return true;
  }

  #list(columns: Columns): boolean {
    if (this.bytes[this.at] !== OPEN_BRACE) return this.#looseList(columns);
    this.at++;
    const start = columns.used;
    let count = 0;
    while (this.bytes[this.at] !== CLOSE_BRACE) {
      if (!this.#hex()) return false;
      columns.grow(2);
      columns.words[columns.used++] = this.low;
      columns.words[columns.used++] = this.high;
      count++;
      if (this.bytes[this.at] === COMMA) this.at++;
      while (this.bytes[this.at] === SPACE) this.at++;
    }
    this.at++;
    this.low = start;
    this.high = count;
    return true;
  }

  /** Decimals with spaces between them, as libtraceevent prints an array; nothing for an empty one. */
  #looseList(columns: Columns): boolean {
    const start = columns.used;
    let count = 0;
    while (this.bytes[this.at]! > SPACE) {
      if (!this.#decimal()) return false;
      columns.grow(2);
      columns.words[columns.used++] = this.low;
      columns.words[columns.used++] = this.high;
      count++;
      const next = DIGITS[this.bytes[this.at + 1]!]!;
      if (this.bytes[this.at] === SPACE && next >= 0 && next < 10) this.at++;
      else break;
    }
    this.low = start;
    this.high = count;
    return true;
  }

  #site(): boolean {
    if (this.bytes[this.at] !== OPEN_PAREN) return false;
    const bytes = this.bytes;
    let at = this.at;
    while (bytes[at] !== CLOSE_PAREN && bytes[at] !== NEWLINE) at++;
    if (bytes[at] === NEWLINE) return false;
    this.at = at + 1;
    return true;
  }
}
