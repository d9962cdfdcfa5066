/**
 * From a format description to words: how each field of an event is read, worked out once per event type.
 *
 * Idea: one numeric step per field (what, where, how long), run by a loop over small integers; strings go through the
 * string table, lists behind the event's own words. Promises: never reads outside the event.
 */
import type { Columns } from "./columns.ts";
import type { EventFormat, FormatField } from "./event-format.ts";
import type { EventField, EventType, FieldKind } from "./events.ts";
import type { StringTable } from "./string-table.ts";

const WORD = 0;
const SIGNED_WORD = 1;
const LONG = 2;
const BYTES = 3;
const SIGNED_BYTES = 4;
const TEXT_FIXED = 5;
const TEXT_DYNAMIC = 6;
const LIST_FIXED = 7;
const LIST_DYNAMIC = 8;

/** Numbers per step: what, offset, size, item size, offset that dynamic positions count from, signed. */
const STEP = 6;

/** Bytes that a dynamic list can have: its length has 16 bits. */
const LONGEST_LIST = 65536;

const kindOf = (field: FormatField): FieldKind =>
  field.shape === "scalar" ? (field.signed ? "signed" : "unsigned") : field.text ? "string" : "array";

function stepOf(field: FormatField): number[] {
  const signed = field.signed ? 1 : 0;
  if (field.shape === "scalar") {
    const aligned = field.offset % 4 === 0;
    const what =
      field.size === 4 && aligned
        ? field.signed
          ? SIGNED_WORD
          : WORD
        : field.size === 8 && aligned
          ? LONG
          : field.signed
            ? SIGNED_BYTES
            : BYTES;
    return [what, field.offset, field.size, 0, 0, signed];
  }
  const fixed = field.shape === "fixed";
  const what = field.text ? (fixed ? TEXT_FIXED : TEXT_DYNAMIC) : fixed ? LIST_FIXED : LIST_DYNAMIC;
  return [what, field.offset, field.size, field.itemSize, field.shape === "relative" ? field.offset + 4 : 0, signed];
}

export class FieldPlan {
  readonly type: EventType;
  /** Words of the fields themselves. */
  readonly wordCount: number;
  /** Words of the items of fixed lists. */
  readonly #fixedItems: number;
  /** Words that dynamic lists need for every byte of the event. */
  readonly #wordsPerByte: number;
  /** Bytes that every event of this type has. */
  readonly least: number;
  readonly #steps: Int32Array;

  constructor(format: EventFormat) {
    const fields: EventField[] = format.fields.map((field) => ({ name: field.name, kind: kindOf(field) }));
    this.type = { id: format.id, system: format.system, name: format.name, fields };
    this.wordCount = fields.length * 2;
    const lists = format.fields.filter((field) => kindOf(field) === "array");
    const wordsOf = (some: readonly FormatField[], bytes: (field: FormatField) => number): number =>
      some.reduce((sum, field) => sum + (2 * bytes(field)) / field.itemSize, 0);
    const known = (field: FormatField): boolean => field.shape === "fixed" && field.size > 0;
    this.#fixedItems = Math.ceil(wordsOf(lists.filter(known), (field) => field.size));
    this.#wordsPerByte = wordsOf(
      lists.filter((field) => !known(field)),
      () => 1,
    );
    this.least = Math.max(
      0,
      ...format.fields.map((field) => field.offset + (field.shape === "fixed" ? 0 : field.size)),
    );
    this.#steps = Int32Array.from(format.fields.flatMap(stepOf));
  }

  /** Words that an event of `length` bytes needs at most. */
  wordsFor(length: number): number {
    return this.wordCount + this.#fixedItems + Math.ceil(this.#wordsPerByte * Math.min(length, LONGEST_LIST));
  }

  /**
   * Appends the words of the event in bytes [start, end); `start` is a multiple of 4 and end - start >= `least`.
   * Answers undefined, or what is wrong with the event.
   */
  read(
    bytes: Uint8Array,
    source: Uint32Array,
    little: boolean,
    start: number,
    end: number,
    columns: Columns,
    strings: StringTable,
  ): string | undefined {
    const steps = this.#steps;
    const words = columns.words;
    let at = columns.used;
    let listAt = at + this.wordCount;
    const base = start >>> 2;
    for (let step = 0; step < steps.length; step += STEP) {
      const offset = steps[step + 1]!;
      const what = steps[step]!;
      if (what === LONG) {
        const index = base + (offset >>> 2);
        words[at] = source[little ? index : index + 1]!;
        words[at + 1] = source[little ? index + 1 : index]!;
      } else if (what === WORD) {
        words[at] = source[base + (offset >>> 2)]!;
        words[at + 1] = 0;
      } else if (what === TEXT_DYNAMIC) {
        const located = locatorAt(source, bytes, little, start + offset);
        const from = start + steps[step + 4]! + (located & 0xffff);
        const to = from + (located >>> 16);
        if (to > end) return `${this.type.name}: a string reaches ${to - end} bytes past the event`;
        let stop = from;
        while (stop < to && bytes[stop] !== 0) stop++;
        words[at] = strings.internBytes(bytes, from, stop);
        words[at + 1] = 0;
      } else if (what === SIGNED_WORD) {
        const value = source[base + (offset >>> 2)]!;
        words[at] = value;
        words[at + 1] = (value | 0) < 0 ? 0xffff_ffff : 0;
      } else if (what === BYTES || what === SIGNED_BYTES) {
        readItem(bytes, little, start + offset, steps[step + 2]!, what === SIGNED_BYTES, words, at);
      } else if (what === TEXT_FIXED) {
        const size = steps[step + 2]!;
        const to = size === 0 ? end : Math.min(end, start + offset + size);
        let stop = Math.min(start + offset, end);
        const from = stop;
        while (stop < to && bytes[stop] !== 0) stop++;
        words[at] = strings.internBytes(bytes, from, stop);
        words[at + 1] = 0;
      } else {
        let from = start + offset;
        let to = steps[step + 2] === 0 ? end : Math.min(end, from + steps[step + 2]!);
        if (what === LIST_DYNAMIC) {
          const located = locatorAt(source, bytes, little, start + offset);
          from = start + steps[step + 4]! + (located & 0xffff);
          to = from + (located >>> 16);
          if (to > end) return `${this.type.name}: a list reaches ${to - end} bytes past the event`;
        }
        const itemSize = steps[step + 3]!;
        const count = Math.max(0, Math.floor((to - from) / itemSize));
        words[at] = listAt;
        words[at + 1] = count;
        for (let item = 0; item < count; item++, listAt += 2)
          readItem(bytes, little, from + item * itemSize, itemSize, steps[step + 5] === 1, words, listAt);
      }
      at += 2;
    }
    columns.used = listAt;
    return undefined;
  }
}

/** Where a dynamic field lies: a word, which the packed arguments of a probe may put at any byte. */
function locatorAt(source: Uint32Array, bytes: Uint8Array, little: boolean, at: number): number {
  if ((at & 3) === 0) return source[at >>> 2]!;
  const [a, b, c, d] = [bytes[at]!, bytes[at + 1]!, bytes[at + 2]!, bytes[at + 3]!];
  return (little ? a | (b << 8) | (c << 16) | (d << 24) : d | (c << 8) | (b << 16) | (a << 24)) >>> 0;
}

/** A number of 1 to 8 bytes, wherever it lies, into two words. */
function readItem(
  bytes: Uint8Array,
  little: boolean,
  from: number,
  size: number,
  signed: boolean,
  words: Uint32Array,
  at: number,
): void {
  let low = 0;
  let high = 0;
  for (let i = 0; i < size; i++) {
    const byte = bytes[little ? from + i : from + size - 1 - i]!;
    if (i < 4) low |= byte << (i * 8);
    else high |= byte << ((i - 4) * 8);
  }
  if (signed && size < 8) {
    const top = bytes[little ? from + size - 1 : from]! & 0x80;
    if (top !== 0) {
      if (size < 4) low |= -1 << (size * 8);
      high = -1;
    }
  }
  words[at] = low;
  words[at + 1] = high;
}
