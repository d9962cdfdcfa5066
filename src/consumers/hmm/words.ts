/**
 * The words of a range: for each page what was asked, and what the process's page table answered.
 *
 * Idea: Linux keeps 64 bits a page: eleven of flags and order above 53 of page number. Here they are two arrays (10 bytes a page), so
 * that no page costs a bigint. On input the two highest bits ask for a fault; on output they say valid and writable. Three bits belong
 * to whoever maps the page for a device and survive every walk.
 * Specified by: Linux 7.2 include/linux/hmm.h.
 */
import type { PhysPage } from "../../base/index.ts";

/** Flags of a word: its bits 53 and up. The low five are the order. */
export const HMM = {
  /** In: bring the page. Out: it can be read. */
  valid: 0x400,
  /** In: so that it can be written. Out: it can. */
  write: 0x200,
  /** Out: it can never be accessed. */
  error: 0x100,
  /** The entry has a live DMA mapping. */
  dmaMapped: 0x80,
  /** Mapped as peer memory, through the host bridge. */
  peer: 0x40,
  /** Peer memory by its address on the bus: nothing is mapped. */
  peerBus: 0x20,
} as const;

/** Flags that a walk leaves alone: those of the DMA mapping. */
export const STICKY: number = HMM.dmaMapped | HMM.peer | HMM.peerBus;
/** Bits of a page word that hold its order: pages of the same mapping around it, as a power of two. */
export const ORDER_MASK = 0x1f;

/** Words of `count` pages, all nothing. */
export class PfnWords {
  /** Words. */
  readonly count: number;
  /** By index: flags in the upper bits, and the order of the entry. */
  readonly flags: Uint16Array;
  /** By index: the page number, where the flags say that the word is valid. */
  readonly pages: Float64Array;

  /** Takes 10 bytes a word at once. */
  constructor(count: number) {
    this.count = count;
    this.flags = new Uint16Array(count);
    this.pages = new Float64Array(count);
  }

  /** Is one of the bits of `flag` set in word `index`? */
  has(index: number, flag: number): boolean {
    return (this.flags[index]! & flag) !== 0;
  }

  /** The page number of word `index`; meaningful only where the word is valid. */
  page(index: number): PhysPage {
    return this.pages[index]! as PhysPage;
  }

  /** Pages that the CPU maps by the same entry, as a power of two. */
  order(index: number): number {
    return this.flags[index]! & ORDER_MASK;
  }

  /** Puts what a walk found; the flags of the DMA mapping stay. */
  put(index: number, flags: number, page: number): void {
    this.flags[index] = (this.flags[index]! & STICKY) | flags;
    this.pages[index] = page;
  }

  /** Nothing is known of it, and nothing mapped. */
  clear(index: number): void {
    this.flags[index] = 0;
    this.pages[index] = 0;
  }
}
