/** The bytes of simulated runs: what is written so that it is known again, what freed memory holds, and memory in pieces. */
import { PAGE_SIZE, PhysAddr, PhysPage } from "../base/index.ts";
import type { PageAllocator, PhysicalMemory } from "../platform/index.ts";

/** Bytes that differ from their neighbours, and from those of another seed (0..250). */
export function pattern(seed: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let i = 0; i < length; i++) bytes[i] = (seed + 7 * i + 13 * (i >> 8)) & 255;
  return bytes;
}

/** What freed memory is filled with. */
const POISON = Uint8Array.from([0xde, 0xad, 0xf0, 0x0d, 0xba, 0xdd, 0xca, 0xfe]);

/** A page of what freed memory is filled with. */
export const POISON_PAGE: Uint8Array = Uint8Array.from({ length: PAGE_SIZE }, (_, i) => POISON[i % POISON.length]!);

/** Pages of `pages` that are poison when they are given back, and zeroed when they are given out. */
export function poisoningPages(pages: PageAllocator, memory: PhysicalMemory): PageAllocator {
  const zeroes = new Uint8Array(PAGE_SIZE);
  const fill = (first: PhysPage, count: number, bytes: Uint8Array): void => {
    for (let i = 0; i < count; i++) memory.write(PhysAddr(PhysPage.start(first) + i * PAGE_SIZE), bytes);
  };
  return {
    allocatePages: (count, lastPage) => {
      const first = pages.allocatePages(count, lastPage);
      if (first !== undefined) fill(first, count, zeroes);
      return first;
    },
    freePages: (first, count) => {
      fill(first, count, POISON_PAGE);
      pages.freePages(first, count);
    },
  };
}

/** True if freed memory was read: the poison stands whole, and begins less than 8 bytes behind `from`. */
export function isPoison(bytes: Uint8Array, from: number): boolean {
  for (let at = from; at + 8 <= bytes.length && at < from + 8; at++)
    if (POISON.every((byte, i) => bytes[at + i] === byte)) return true;
  return false;
}

/** Memory that lies here and there, as one run of bytes. */
type Pieces = readonly { readonly phys: PhysAddr; readonly length: number }[];

/** Writes as the CPU does. `from` is as long as all pieces together. */
export function writePieces(memory: PhysicalMemory, pieces: Pieces, from: Uint8Array): void {
  let at = 0;
  for (const { phys, length } of pieces) {
    memory.write(phys, from.subarray(at, at + length));
    at += length;
  }
}

/** Reads as the CPU does. `into` is as long as all pieces together. */
export function readPieces(memory: PhysicalMemory, pieces: Pieces, into: Uint8Array): void {
  let at = 0;
  for (const { phys, length } of pieces) {
    memory.read(phys, into.subarray(at, at + length));
    at += length;
  }
}
