/**
 * A payload as loose fields, `name=value` in any order, by whatever tool wrote them.
 *
 * Idea: where a line is in none of the kernel's print formats, its values still bear names: libtraceevent prints an event
 * whose format it cannot evaluate field by field (`[FAILED TO PARSE]`, and all of them under `trace-cmd report -R`), tracefs
 * does so under `options/fields`, and a kernel that is newer than the templates has a field more or less. Each value is read
 * by what the catalogue says of its field. One that cannot be read is left out: the field is unknown, the event is not lost.
 * Promises: linear in the payload.
 * Specified by: libtraceevent 1.6 to 1.8 (`name=ARRAY[00, 10]`, numbers as the print format has them, else decimal);
 * tracefs `name=0x1000 (4096)`, `name='c'(99)`, `name=00,10`.
 */
import { ATTRIBUTE_BITS, DIRECTION_NAMES } from "../catalogue.ts";
import type { EventField, FieldKind } from "../events.ts";
import type { Template, ValueShape } from "./print-formats.ts";

/** One field of a payload: a text, a number of 64 bits, or a list of them. */
interface LooseField {
  readonly name: string;
  readonly kind: FieldKind;
  readonly value: string | bigint | readonly bigint[];
}

export interface LooseFields {
  readonly fields: readonly LooseField[];
  /** `name=value` of what could not be read. */
  readonly unknown: readonly string[];
}

interface Pair {
  readonly name: string;
  readonly value: string;
  /** A number that the tool gave in decimal beside the hexadecimal one. */
  readonly isDecimal: boolean;
}

interface Payload {
  readonly pairs: readonly Pair[];
  /** What is no pair, in order. */
  readonly words: readonly string[];
  /** libtraceevent could not evaluate the print format: numbers are decimal there. */
  readonly isUnformatted: boolean;
}

const NAME = /[A-Za-z_][\w.[\]-]*/y;
/** The number again, as tracefs prints it behind the hexadecimal one. */
const AGAIN = / \((-?\d{1,20})\)(?= |$)/y;
/** A byte as tracefs prints it: `'c'(99)`, or `(0)` where it is no character. */
const CHARACTER = /^(?:'[\s\S]')?\((-?\d{1,3})\)$/;
const FAILED = "[FAILED TO PARSE]";
/** No event has more; what a line holds beyond is no field. */
const MOST_PAIRS = 512;
/** Closing characters by what opens a value that may hold spaces. */
const CLOSERS: readonly (readonly [string, string])[] = [
  ['"', '"'],
  ["{", "}"],
  ["ARRAY[", "]"],
];

/** Takes a payload apart. */
export function payloadOf(text: string): Payload {
  const pairs: Pair[] = [];
  const words: string[] = [];
  const isFailed = text.startsWith(FAILED);
  /** Closers that do not come any more: looked for once. */
  const gone = new Set<string>();
  let at = isFailed ? FAILED.length : 0;
  const end = text.length;
  while (at < end) {
    while (at < end && text[at]! <= " ") at++;
    if (at === end) break;
    if (pairs.length + words.length > MOST_PAIRS) {
      words.push(text.slice(at));
      break;
    }
    const from = at;
    NAME.lastIndex = at;
    const name = NAME.exec(text)?.[0];
    if (name !== undefined && text[at + name.length] === "=") {
      at += name.length + 1;
      const valueFrom = at;
      at = endOfValue(text, at, gone);
      let value = text.slice(valueFrom, at);
      AGAIN.lastIndex = at;
      const again = AGAIN.exec(text) ?? CHARACTER.exec(value);
      if (again) {
        value = again[1]!;
        at = Math.max(at, AGAIN.lastIndex);
      }
      pairs.push({ name, value, isDecimal: again !== null });
    } else {
      const isSite = text[at] === "(" && words.length === 0 && pairs.length === 0 && !gone.has(")");
      const close = isSite ? text.indexOf(")", at) : -1;
      if (isSite && close < 0) gone.add(")");
      if (close >= 0) at = close + 1;
      else while (at < end && text[at]! > " ") at++;
      if (close < 0) words.push(text.slice(from, at));
    }
  }
  return { pairs, words, isUnformatted: isFailed || pairs.some(({ value }) => value.startsWith("ARRAY[")) };
}

function endOfValue(text: string, from: number, gone: Set<string>): number {
  for (const [open, close] of CLOSERS) {
    if (gone.has(close) || !text.startsWith(open, from)) continue;
    const at = text.indexOf(close, from + open.length);
    if (at >= 0) return at + 1;
    gone.add(close);
  }
  let at = from;
  if (text[from] === "'" && text[from + 2] === "'") at = from + 3; // the character may be a space
  while (at < text.length && text[at]! > " ") at++;
  return at;
}

/** The fields of an event of the catalogue. `base` is that of addresses without 0x where numbers follow the print format. */
export function catalogued(templates: readonly Template[], payload: Payload, base: 10 | 16): LooseFields | undefined {
  const fields = new Map<string, LooseField>();
  const unknown: string[] = [];
  const take = (field: string, shape: ValueShape, text: string, key: string, isDecimal = false): void => {
    if (fields.has(field)) return;
    const one = read(field, shape, text, payload.isUnformatted || isDecimal ? 10 : base);
    if (one) fields.set(field, one);
    else if (shape !== "pointer")
      // a kernel that has not hashed it yet prints no number
      unknown.push(`${key}=${text}`);
  };
  const isRaw = payload.isUnformatted || payload.pairs.some(({ name }) => name === "device" || name === "dev_name");
  const shapes = shapesOf(templates, isRaw);
  for (const { name, value, isDecimal } of payload.pairs) {
    const known = shapes.get(name);
    if (known) take(known.field, known.shape, value, name, isDecimal);
    else if (name === "nents" || name === "ents")
      take(`full_${name}`, "number", value.slice(value.indexOf("/") + 1), name);
  }
  if (!isRaw) takeWords(payload.words, shapes, take);
  return fields.size > 0 ? { fields: [...fields.values()], unknown } : undefined;
}

/** What stands between the pairs: the device, the driver, flags. */
function takeWords(
  words: readonly string[],
  shapes: ReadonlyMap<string, Shaped>,
  take: (field: string, shape: ValueShape, text: string, key: string) => void,
): void {
  words.forEach((word, i) => {
    const label = /^(\w+):$/.exec(word)?.[1];
    const labelled = label === undefined ? undefined : shapes.get(label);
    if (labelled && words[i + 1] !== undefined) take(labelled.field, labelled.shape, words[i + 1]!, label!);
    else if (/^(?:FORCE|NORMAL|NO_FORCE)$/.test(word)) take("force", "forced", word, "force");
    else if (word.startsWith("IOMMU:")) {
      if (word.length > 6 && shapes.has("driver")) take("driver", "word", word.slice(6), "driver");
    } else if (word === "[TRUNCATED]") take("truncated", "truncated", word, "truncated");
    else if (word !== "-" && !word.startsWith("0x") && shapes.has("device")) take("device", "word", word, "device");
  });
}

interface Shaped {
  readonly field: string;
  readonly shape: ValueShape;
}

/** By the name in front of a value: the kernel prints some fields under another name than they bear. */
function shapesOf(templates: readonly Template[], isRaw: boolean): Map<string, Shaped> {
  const shapes = new Map<string, Shaped>();
  const add = (name: string, field: string, shape: ValueShape): void => {
    if (name !== "" && field !== "" && !shapes.has(name)) shapes.set(name, { field, shape });
  };
  for (const { values } of templates)
    for (const { key, field, shape } of values) add(isRaw ? field : key, field, shape);
  for (const { values } of templates) for (const { field, shape } of values) add(field, field, shape);
  return shapes;
}

/** The fields of any other event, if its payload is nothing but pairs. */
export function uncatalogued({ pairs, words }: Payload): LooseFields | undefined {
  if (words.length > 0 || pairs.length === 0) return undefined;
  return {
    fields: pairs.map(({ name, value }): LooseField => {
      if (/^-?\d{1,18}$/.test(value)) return { name, kind: "signed", value: BigInt(value) };
      if (/^0x[0-9a-fA-F]{1,16}$/.test(value)) return { name, kind: "unsigned", value: BigInt(value) };
      return { name, kind: "string", value: value.replace(/^"([^"]*)"$/, "$1") };
    }),
    unknown: [],
  };
}

export const fieldOf = ({ name, kind }: LooseField): EventField => ({ name, kind });

function read(name: string, shape: ValueShape, text: string, base: 10 | 16): LooseField | undefined {
  switch (shape) {
    case "word":
    case "site":
      return { name, kind: "string", value: text };
    case "quoted":
      return { name, kind: "string", value: text.replace(/^"([^"]*)"$/, "$1") };
    case "list": {
      const items = listOf(text, name === "lengths" ? 4 : 8);
      return items && { name, kind: "array", value: items };
    }
    case "direction": {
      const direction = DIRECTION_NAMES.indexOf(text);
      return unsigned(name, direction >= 0 ? BigInt(direction) : numberOf(text, 10));
    }
    case "attrs":
      return unsigned(name, attributesOf(text));
    case "truncated":
      return unsigned(name, text === "[TRUNCATED]" ? 1n : numberOf(text, 10));
    case "forced":
      return unsigned(name, text === "FORCE" ? 1n : /^(?:NORMAL|NO_FORCE)$/.test(text) ? 0n : numberOf(text, 10));
    case "number": {
      const value = numberOf(text, 10);
      return value === undefined ? undefined : { name, kind: "signed", value };
    }
    case "decimal":
      return unsigned(name, numberOf(text, 10));
    case "pointer":
      return unsigned(name, /^\((?:nil|null)\)$/.test(text) ? 0n : numberOf(text, 16));
    case "hex":
      return unsigned(name, numberOf(text, base));
  }
}

/** A payload without what perf prints behind it with `-F ip,sym`: `ffffffff81e2d514 symbol (dso)`. */
export const withoutSite = (text: string): string => text.replace(/ [0-9a-f]{8,16} \S+(?: \([^()]*\))?$/, "");

const unsigned = (name: string, value: bigint | undefined): LooseField | undefined =>
  value === undefined ? undefined : { name, kind: "unsigned", value };

/** A number of 64 bits; `base` is that of one without 0x, unless its digits say otherwise. */
function numberOf(text: string, base: 10 | 16): bigint | undefined {
  let value: bigint | undefined;
  if (/^0x[0-9a-fA-F]{1,16}$/.test(text)) value = BigInt(text);
  else if (base === 10 && /^-?\d{1,20}$/.test(text)) value = BigInt(text);
  else if (/^[0-9a-fA-F]{1,16}$/.test(text)) value = BigInt(`0x${text}`);
  return value !== undefined && value < 1n << 64n ? value : undefined;
}

/** Bits of the attributes that are known; undefined where none is. */
function attributesOf(text: string): bigint | undefined {
  let bits = 0n;
  let isKnown = text === "";
  for (const word of text === "" ? [] : text.split("|")) {
    const bit = Object.hasOwn(ATTRIBUTE_BITS, word) ? ATTRIBUTE_BITS[word] : undefined;
    const number = bit === undefined ? numberOf(word, 10) : 1n << BigInt(bit);
    if (number !== undefined) bits |= number;
    isKnown ||= number !== undefined || /^[A-Z_\d]+$/.test(word);
  }
  return isKnown ? bits : undefined;
}

/** `{0x1,0x2}`, or the bytes of the items, lowest first: `ARRAY[00, 10]` and `00,10`. */
function listOf(text: string, itemBytes: number): bigint[] | undefined {
  const inner = /^(?:\{([^}]*)\}|ARRAY\[([^\]]*)\]|(.*))$/.exec(text);
  const words = (inner?.[1] ?? inner?.[2] ?? inner?.[3] ?? "").split(/[ ,]+/).filter((word) => word !== "");
  if (inner?.[1] !== undefined || !words.every((word) => /^[0-9a-f]{2}$/.test(word))) {
    const items = words.map((word) => numberOf(word, inner?.[1] === undefined ? 10 : 16));
    return items.every((item) => item !== undefined) ? (items as bigint[]) : undefined;
  }
  if (words.length % itemBytes !== 0) return undefined;
  return Array.from({ length: words.length / itemBytes }, (_, item) =>
    BigInt(
      `0x${words
        .slice(item * itemBytes, (item + 1) * itemBytes)
        .reverse()
        .join("")}`,
    ),
  );
}

const ADDRESS = /\b(?:dma_addr|phys_addr|dev_addr|addr|iova|paddr)=([0-9a-fA-F]+)(?![\w(])/g;

/**
 * The base of addresses without 0x under `trace-cmd report -R`: newer ones print as the format does (hexadecimal), older
 * ones in decimal. A letter among the digits of any decides; else what lies on page boundaries.
 */
export function baseOf(text: string): 10 | 16 {
  let [hexadecimal, decimal] = [0, 0];
  for (const [, digits] of text.matchAll(ADDRESS)) {
    if (/[a-fA-F]/.test(digits!)) return 16;
    if (digits!.endsWith("000") || digits === "0") hexadecimal++;
    else if (digits!.length <= 20 && BigInt(digits!) % 4096n === 0n) decimal++;
  }
  return decimal > hexadecimal ? 10 : 16;
}
