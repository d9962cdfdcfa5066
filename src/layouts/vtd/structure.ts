/**
 * Structure: a VT-d structure as data, a list of named fields at the bit positions that the specification writes.
 *
 * Idea: position n is bit `n % 64` of word `n / 64`; one decoder and one builder serve every structure, so they cannot
 * disagree, and what is in no field is reserved by definition. Words are bigints: these structures are met once per
 * device, not once per page.
 * Promises: `encodeEntry(decodeEntry(words))` gives back `words` less their reserved and ignored bits; nothing is
 * truncated silently. Not for: page-table entries, which have their own layouts.
 */
import type { PhysPage } from "../../base/index.ts";
import { fieldOverflow, wordCount } from "./errors.ts";

/** A field, and how its bits are shown. */
interface Field<V> {
  /** Lowest bit, counted over the whole structure, and number of bits; a field lies in one word. */
  readonly position: number;
  readonly width: number;
  show(bits: bigint): V;
  bits(value: V): number | bigint;
}

export interface Structure<T extends object> {
  readonly name: string;
  /** The section it is from. */
  readonly source: string;
  /** 64-bit words. */
  readonly words: number;
  readonly fields: { readonly [K in keyof T]: Field<T[K]> };
  /** Bits [high, low] that hardware ignores: neither fields nor reserved. */
  readonly ignored?: readonly (readonly [high: number, low: number])[];
}

/** One bit. */
export const flag = (position: number): Field<boolean> => ({
  position,
  width: 1,
  show: (bits) => bits === 1n,
  bits: (value) => (value ? 1n : 0n),
});

/** Bits high..low as a number. */
export const number = (high: number, low: number): Field<number> => ({
  position: low,
  width: high - low + 1,
  show: Number,
  bits: (value) => value,
});

/** Bits high..low as the number of a physical page: a pointer without its twelve low bits. */
export const pointer = (high: number, low: number): Field<PhysPage> => ({
  position: low,
  width: high - low + 1,
  show: (bits) => Number(bits) as PhysPage,
  bits: (value) => value,
});

const maskOf = (width: number): bigint => (1n << BigInt(width)) - 1n;

/** What `words` say. @throws DmaError ERR_DMA_VTD_WORDS (EINVAL): not as many words as the structure has */
export function decodeEntry<T extends object>(structure: Structure<T>, words: readonly bigint[]): T {
  if (words.length !== structure.words) throw wordCount(structure.name, structure.words, words.length);
  const result: Partial<T> = {};
  for (const key in structure.fields) {
    const field = structure.fields[key];
    const word = words[field.position >> 6]!;
    result[key] = field.show((word >> BigInt(field.position & 63)) & maskOf(field.width));
  }
  return result as T;
}

/** The words that say `value`; reserved bits are 0. @throws DmaError ERR_DMA_VTD_FIELD (EINVAL): a value does not fit */
export function encodeEntry<T extends object>(structure: Structure<T>, value: T): bigint[] {
  const words = new Array<bigint>(structure.words).fill(0n);
  for (const key in structure.fields) {
    const field = structure.fields[key];
    const given = field.bits(value[key]);
    const fits = typeof given === "bigint" || (Number.isInteger(given) && given >= 0 && given < 2 ** field.width);
    if (!fits) throw fieldOverflow(structure.name, key, given, field.width);
    words[field.position >> 6]! |= BigInt(given) << BigInt(field.position & 63);
  }
  return words;
}

/** The bits of `words` that are set although the structure reserves them: hardware refuses such an entry. */
export function reservedBits<T extends object>(structure: Structure<T>, words: readonly bigint[]): bigint[] {
  const known = new Array<bigint>(structure.words).fill(0n);
  const add = (position: number, width: number): void => {
    known[position >> 6]! |= maskOf(width) << BigInt(position & 63);
  };
  for (const key in structure.fields) add(structure.fields[key].position, structure.fields[key].width);
  for (const [high, low] of structure.ignored ?? []) add(low, high - low + 1);
  return words.map((word, i) => word & ~known[i]! & maskOf(64));
}
