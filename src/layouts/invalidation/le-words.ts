/**
 * Words: how descriptors and commands lie in memory, as 32-bit words, lowest first.
 *
 * A structure of 128 bits is four words of a `Uint32Array`, at the index that the writer is given. A writer checks every
 * field before it writes the first word, so a refused one leaves the words as they were.
 */
import type { IovaPage, PhysAddr } from "../../base/index.ts";
import { fieldOverflow } from "./errors.ts";

/** Instead of a PASID: requests without one. */
export const NO_PASID = -1;

/** All bits of a word. */
export const WORD = 0xffffffff;

/** Which bits of words 0 to 3 are fields; the others are reserved. */
export type FieldMasks = readonly [number, number, number, number];

export function putWords(words: Uint32Array, at: number, w0: number, w1: number, w2: number, w3: number): void {
  words[at] = w0;
  words[at + 1] = w1;
  words[at + 2] = w2;
  words[at + 3] = w3;
}

/** The bits that are set although they are reserved; 0 when there are none. */
export const reservedBits = (fields: FieldMasks, w0: number, w1: number, w2: number, w3: number): number =>
  (w0 & ~fields[0]) | (w1 & ~fields[1]) | (w2 & ~fields[2]) | (w3 & ~fields[3]);

/** Refuses a value that does not fit. @throws DmaError ERR_DMA_INVALIDATION_FIELD (EINVAL) */
export function checkField(structure: string, field: string, value: number, bits: number): void {
  if (!(Number.isInteger(value) && value >= 0 && value < 2 ** bits)) throw fieldOverflow(structure, field, value, bits);
}

/** Bits 31:12 of a page's address. */
export const pageLow = (page: IovaPage): number => page << 12;
/** Bits 63:32 of a page's address. */
export const pageHigh = (page: IovaPage): number => Math.floor(page / 2 ** 20);
/** The page of an address in two words; bits 11:0 are other fields. */
export const pageOf = (low: number, high: number): IovaPage => ((high >>> 0) * 2 ** 20 + (low >>> 12)) as IovaPage;

/** A byte address from two words. Exact below 2^53; physical addresses have at most 52 bits. */
export const addressOf = (low: number, high: number): PhysAddr => ((high >>> 0) * 2 ** 32 + (low >>> 0)) as PhysAddr;
/** Bits 63:32 of a byte address. */
export const addressHigh = (address: PhysAddr): number => Math.floor(address / 2 ** 32);

/** One bit, at 0 to 31. */
export const flagAt = (value: boolean, bit: number): number => (value ? 1 << bit : 0);
