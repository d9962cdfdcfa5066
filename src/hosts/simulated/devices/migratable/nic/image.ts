/**
 * The image of a network function: its registers, and pages of its memory, all of them or those that changed.
 *
 * Idea: an image says how long it is, which it is in its row, and whether it is the last, and ends with a checksum: so a row with
 * a piece missing, doubled, damaged or out of order is found out. A header of 64 bytes, pages with their numbers, checksum.
 */
import { crc32, PAGE_SIZE } from "../../../../../base/index.ts";

const MAGIC = 0x4943494e;
const HEADER_BYTES = 64;
const PAGE_RECORD_BYTES: number = 4 + PAGE_SIZE;
const CHECKSUM_BYTES = 4;
/** Where the header's fields lie. */
const AT = { magic: 0, length: 4, sequence: 8, flags: 12, memoryPages: 16, pages: 20, registers: 24 } as const;
const FULL = 1;
const LAST = 2;

/** Words of registers in an image. */
export const IMAGE_REGISTERS = 9;

export interface Image {
  /** Every page is in it; without that, those that changed since the image before. */
  readonly isFull: boolean;
  /** Taken when nothing could change any more. */
  readonly isLast: boolean;
  /** Its place in the row: a full one is number 0. */
  readonly sequence: number;
  readonly registers: Uint32Array;
  /** Pages that the function's memory has. */
  readonly memoryPages: number;
  /** In ascending order. */
  readonly pages: readonly {
    /** Its number in the function's memory. */
    readonly index: number;
    /** What it holds. */
    readonly bytes: Uint8Array;
  }[];
}

/** Bytes of an image with `pages` pages. */
export const imageLength = (pages: number): number => HEADER_BYTES + pages * PAGE_RECORD_BYTES + CHECKSUM_BYTES;

export function encodeImage(image: Image): Uint8Array {
  const bytes = new Uint8Array(imageLength(image.pages.length));
  const view = new DataView(bytes.buffer);
  view.setUint32(AT.magic, MAGIC, true);
  view.setUint32(AT.length, bytes.length, true);
  view.setUint32(AT.sequence, image.sequence, true);
  view.setUint32(AT.flags, (image.isFull ? FULL : 0) | (image.isLast ? LAST : 0), true);
  view.setUint32(AT.memoryPages, image.memoryPages, true);
  view.setUint32(AT.pages, image.pages.length, true);
  image.registers.forEach((word, i) => {
    view.setUint32(AT.registers + i * 4, word, true);
  });
  image.pages.forEach((page, i) => {
    const at = HEADER_BYTES + i * PAGE_RECORD_BYTES;
    view.setUint32(at, page.index, true);
    bytes.set(page.bytes, at + 4);
  });
  view.setUint32(bytes.length - CHECKSUM_BYTES, crc32(bytes.subarray(0, bytes.length - CHECKSUM_BYTES)), true);
  return bytes;
}

/**
 * Bytes of the image that begins `bytes`; 0: not enough to say. `undefined`: no image of a function with `memoryPages`
 * begins there.
 */
export function lengthOfImage(bytes: Uint8Array, memoryPages: number): number | undefined {
  if (bytes.length < HEADER_BYTES) return 0;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const pages = view.getUint32(AT.pages, true);
  const length = view.getUint32(AT.length, true);
  const fits =
    view.getUint32(AT.memoryPages, true) === memoryPages && pages <= memoryPages && length === imageLength(pages);
  return view.getUint32(AT.magic, true) === MAGIC && fits ? length : undefined;
}

/** The image that `bytes` are, all of them; undefined if they are damaged. Valid for bytes whose length was approved. */
export function decodeImage(bytes: Uint8Array): Image | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const end = bytes.length - CHECKSUM_BYTES;
  if (view.getUint32(end, true) !== crc32(bytes.subarray(0, end))) return undefined;
  const flags = view.getUint32(AT.flags, true);
  const memoryPages = view.getUint32(AT.memoryPages, true);
  const pages = Array.from({ length: view.getUint32(AT.pages, true) }, (_, i) => {
    const at = HEADER_BYTES + i * PAGE_RECORD_BYTES;
    return { index: view.getUint32(at, true), bytes: bytes.subarray(at + 4, at + PAGE_RECORD_BYTES) };
  });
  if (pages.some(({ index }) => index >= memoryPages)) return undefined;
  return {
    isFull: (flags & FULL) !== 0,
    isLast: (flags & LAST) !== 0,
    sequence: view.getUint32(AT.sequence, true),
    registers: Uint32Array.from({ length: IMAGE_REGISTERS }, (_, i) => view.getUint32(AT.registers + i * 4, true)),
    memoryPages,
    pages,
  };
}
