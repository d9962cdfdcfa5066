/**
 * A GPU, as its driver sees it: an MMU of its own, memory of its own, engines that copy and compute, and page faults that it asks about.
 *
 * Idea: the driver writes page tables (layouts/gpu) and tells the MMU what to forget, exactly as it drives an IOMMU; so the MMU is a
 * {@link TranslationUnit} whose requesters are the GPU's address spaces. Data goes over the bus by DMA only, so that what an entry leads
 * to outside is translated once more, by the machine's IOMMU. Work that meets an absent page waits; its question stands in a queue until
 * the driver has answered it.
 * Promises: none of the calls throws for what the GPU does wrong; when an invalidation of the MMU returns, nothing that was translated
 * before it is under way. Not for: which pages, and when (consumers/gpu).
 */
import type { DmaAddr } from "../base/index.ts";
import type { Steps } from "./steps.ts";
import type { TranslationUnit } from "./translation.ts";

/** A piece of work in one address space of the GPU. Addresses and lengths are bytes as the program counts them. */
export type GpuWork =
  /** Bytes of a pattern: byte i is (`seed` + i) mod 251. */
  | { readonly do: "fill"; readonly to: number; readonly length: number; readonly seed: number }
  | { readonly do: "copy"; readonly from: number; readonly to: number; readonly length: number }
  /** Adds `value` to each word of 32 bits, little endian: `length` is a multiple of 4, `to` too. */
  | { readonly do: "add"; readonly to: number; readonly length: number; readonly value: number }
  /** The sum, modulo 2^32, of the words of 32 bits; written to `to` (4 bytes). */
  | { readonly do: "reduce"; readonly from: number; readonly to: number; readonly length: number };

/** How a piece of work ended. */
export interface GpuWorkResult {
  /**
   * `fault`: the driver said that a page cannot be had. `bus`: the machine's IOMMU refused an address that the GPU's own table had: what the
   * driver promised was not so. `hung`: the work did not end in the rounds that it has.
   */
  readonly status: "done" | "fault" | "bus" | "hung";
  /** Bytes done, from the first on. */
  readonly bytes: number;
  /** Where it stopped. */
  readonly at?: number;
}

/** A page that work in an address space needs and does not have, or may not write. */
export interface GpuPageFault {
  /** For {@link GpuAdapter.resume}. */
  readonly id: number;
  readonly space: number;
  /** First byte of the page. */
  readonly address: number;
  readonly write: boolean;
}

/** A GPU's commands. */
export interface GpuAdapter {
  readonly name: string;
  /** Walks the tables of address spaces, which are its requesters; remembers what it found until it is told. */
  readonly mmu: TranslationUnit;
  /** Pages of 4 KiB of its own memory. */
  readonly memoryPages: number;
  /** Its place on the interconnect; undefined: it is on none. */
  readonly link: number | undefined;
  /** Work of this address space can have page faults answered. False: an absent page ends it. */
  setFaulting(space: number, on: boolean): void;
  /** Does work; stops where it waits for a page, and between pages. */
  execute(space: number, work: GpuWork): Steps<GpuWorkResult>;
  /** The oldest page fault that nobody has taken yet. */
  takeFault(): GpuPageFault | undefined;
  /** The fault is dealt with: the work looks again, or ends. */
  resume(id: number, isThere: boolean): void;
  /** The interconnect leads to the memory of the GPU at place `link`. */
  reaches(link: number): boolean;
  /** Copies `pages` pages from the bus into its own memory. False: an address was refused. */
  copyIn(from: DmaAddr, to: number, pages: number): boolean;
  /** Copies `pages` pages of its own memory to the bus. False: an address was refused. */
  copyOut(from: number, to: DmaAddr, pages: number): boolean;
  /** Copies `pages` pages from a linked GPU's memory into its own. False: there is no link. */
  copyAcross(link: number, from: number, to: number, pages: number): boolean;
  /** Fills pages of its own memory with zeros. */
  clear(first: number, pages: number): void;
}
