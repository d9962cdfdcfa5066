/**
 * Values in the payload of a text line, read from the bytes into two words each.
 *
 * Idea: a position that moves over one line; nothing becomes a string before the string table has not seen it. Each
 * method answers whether the value is there; `low` and `high` then hold it.
 */
import { ATTRIBUTE_BITS, DIRECTION_NAMES } from "./catalogue.ts";
import type { Columns } from "./columns.ts";
import type { StringTable } from "./string-table.ts";
import type { Template, ValueShape } from "./text-templates.ts";

const SPACE = 32;
const QUOTE = 34;
const OPEN_PAREN = 40;
const CLOSE_PAREN = 41;
const COMMA = 44;
const MINUS = 45;
const ZERO = 48;
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
const NORMAL = encoder.encode("NORMAL");
const NIL = [encoder.encode("(nil)"), encoder.encode("(null)")];

export class ValueReader {
  bytes: Uint8Array = new Uint8Array(0);
  at = 0;
  end = 0;
  low = 0;
  high = 0;

  /** Reads the payload [at, end) by `template` behind the words in use; false: the line is of another form. */
  match(template: Template, at: number, end: number, columns: Columns, strings: StringTable): boolean {
    this.at = at;
    this.end = end;
    const used = columns.used;
    const { steps, fields, tail } = template;
    columns.used = used + fields.length * 2;
    for (let i = 0; i < steps.length; i++) {
      const { literal, shape, field } = steps[i]!;
      if (!this.skip(literal) || !this.#value(shape, columns, strings)) {
        columns.used = used;
        return false;
      }
      if (field >= 0) {
        columns.words[used + field * 2] = this.low;
        columns.words[used + field * 2 + 1] = this.high;
      }
    }
    if (this.skip(tail)) {
      while (this.at < this.end && this.bytes[this.at] === SPACE) this.at++;
      if (this.at === this.end) return true;
    }
    columns.used = used;
    return false;
  }

  /** Steps over `literal` where it stands next. */
  skip(literal: Uint8Array): boolean {
    const at = this.at;
    const length = literal.length;
    if (at + length > this.end) return false;
    const bytes = this.bytes;
    for (let i = 0; i < length; i++) if (bytes[at + i] !== literal[i]) return false;
    this.at = at + length;
    return true;
  }

  #value(shape: ValueShape, columns: Columns, strings: StringTable): boolean {
    switch (shape) {
      case "hex":
        return this.hex();
      case "decimal":
        return this.decimal();
      case "word":
        return this.#word(strings);
      case "direction":
        return this.#direction();
      case "attrs":
        return this.#attrs();
      case "quoted":
        return this.#quoted(strings);
      case "pointer":
        return this.#pointer();
      case "number":
        return this.#number();
      case "list":
        return this.#list(columns);
      case "site":
        return this.#site();
      case "truncated":
        this.low = this.skip(TRUNCATED) ? 1 : 0;
        this.high = 0;
        return true;
      case "forced":
        this.low = this.skip(FORCE) ? 1 : 0;
        this.high = 0;
        return this.low === 1 || this.skip(NORMAL);
    }
  }

  /** Hexadecimal of 1 to 16 digits, with or without 0x. */
  hex(): boolean {
    const bytes = this.bytes;
    const end = this.end;
    let at = this.at;
    if (bytes[at] === ZERO && bytes[at + 1] === SMALL_X && at + 2 < end) at += 2;
    const from = at;
    let low = 0;
    let high = 0;
    for (; at < end; at++) {
      const digit = DIGITS[bytes[at]!]!;
      if (digit < 0) break;
      if (at - from >= 8) high = (high << 4) | (low >>> 28);
      low = (low << 4) | digit;
    }
    if (at === from || at - from > 16) return false;
    this.low = low >>> 0;
    this.high = high >>> 0;
    this.at = at;
    return true;
  }

  /** Decimal of up to 64 bits. */
  decimal(): boolean {
    const bytes = this.bytes;
    const end = this.end;
    const from = this.at;
    let at = from;
    let value = 0;
    for (; at < end; at++) {
      const digit = bytes[at]! - ZERO;
      if (digit < 0 || digit > 9) break;
      value = value * 10 + digit;
    }
    // `0x…`: a probe that prints in hexadecimal.
    if (at === from + 1 && value === 0 && bytes[at] === SMALL_X) return this.hex();
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
    if (this.bytes[this.at] !== MINUS || this.at >= this.end) return this.decimal();
    this.at++;
    if (!this.decimal()) return false;
    this.high = ~this.high + (this.low === 0 ? 1 : 0);
    this.low = -this.low | 0;
    return true;
  }

  #pointer(): boolean {
    if (this.bytes[this.at] !== OPEN_PAREN) return this.hex();
    this.low = 0;
    this.high = 0;
    return NIL.some((nil) => this.skip(nil));
  }

  #word(strings: StringTable): boolean {
    const from = this.at;
    let at = from;
    while (at < this.end && this.bytes[at] !== SPACE) at++;
    return this.#text(strings, from, at, at);
  }

  #text(strings: StringTable, from: number, to: number, next: number): boolean {
    this.low = strings.internBytes(this.bytes, from, to);
    this.high = 0;
    this.at = next;
    return true;
  }

  #quoted(strings: StringTable): boolean {
    if (this.bytes[this.at] !== QUOTE) return this.#word(strings);
    const from = this.at + 1;
    let at = from;
    while (at < this.end && this.bytes[at] !== QUOTE) at++;
    return at < this.end && this.#text(strings, from, at, at + 1);
  }

  #direction(): boolean {
    for (let direction = 0; direction < DIRECTIONS.length; direction++)
      if (this.bytes[this.at] === DIRECTIONS[direction]![0]) {
        this.low = direction;
        this.high = 0;
        return this.skip(DIRECTIONS[direction]!);
      }
    return this.decimal();
  }

  #attrs(): boolean {
    let low = 0;
    let high = 0;
    while (this.at < this.end && this.bytes[this.at] !== SPACE) {
      if (DIGITS[this.bytes[this.at]!]! >= 0 && this.bytes[this.at]! < 58) {
        if (!this.hex()) return false; // bits without a name
        low |= this.low;
        high |= this.high;
      } else {
        const bit = this.#attribute();
        if (bit < 0) return false;
        low |= 1 << bit;
      }
      if (this.bytes[this.at] === BAR && this.at < this.end) this.at++;
      else break;
    }
    this.low = low >>> 0;
    this.high = high >>> 0;
    return true;
  }

  #attribute(): number {
    for (const { name, bit } of ATTRIBUTES) {
      const from = this.at;
      if (!this.skip(name)) continue;
      const next = this.at < this.end ? this.bytes[this.at]! : SPACE;
      if (next === SPACE || next === BAR) return bit;
      this.at = from; // only the beginning of a longer name
    }
    return -1;
  }

  #list(columns: Columns): boolean {
    if (this.bytes[this.at] !== OPEN_BRACE) return false;
    this.at++;
    const start = columns.used;
    let count = 0;
    while (this.at < this.end && this.bytes[this.at] !== CLOSE_BRACE) {
      if (!this.hex()) return false;
      columns.grow(2);
      columns.words[columns.used++] = this.low;
      columns.words[columns.used++] = this.high;
      count++;
      if (this.bytes[this.at] === COMMA) this.at++;
    }
    if (this.at >= this.end) return false;
    this.at++;
    this.low = start;
    this.high = count;
    return true;
  }

  #site(): boolean {
    if (this.bytes[this.at] !== OPEN_PAREN) return false;
    while (this.at < this.end && this.bytes[this.at] !== CLOSE_PAREN) this.at++;
    return this.at++ < this.end;
  }
}
