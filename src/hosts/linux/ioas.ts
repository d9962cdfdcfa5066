/**
 * An address space that the kernel keeps for the devices of a group: what iommufd and VFIO's older container both offer.
 *
 * Idea: memory of this process, by its own virtual addresses, is mapped at an address that we choose; the kernel pins the
 * pages, writes the page table and invalidates. A mapping is unmapped as it was mapped, as a whole.
 * Promises: a failed map leaves nothing. Not for: choosing addresses; that is {@link LinuxDomain}'s.
 */

import type { Fd } from "./syscalls.ts";

/** Half-open, bytes. */
export interface AddressRange {
  /** First address. */
  readonly start: number;
  /** The address after the last. */
  readonly end: number;
}

/** An address space that the kernel keeps for the devices of an IOMMU group: iommufd's, or VFIO's older container. */
export interface IoAddressSpace {
  /** Which of the kernel's two interfaces it is made by. */
  readonly kind: BackEnd;
  /** The device that the space was made for: its file, for its own requests. */
  readonly device: Fd;
  /** Bytes of the smallest thing that can be mapped, and what everything must be aligned to. */
  readonly granule: number;
  /** Where the kernel lets us map: what the IOMMU translates, less what is reserved (interrupts, firmware). */
  readonly ranges: readonly AddressRange[];
  /** Mappings that may exist at once; undefined if only memory limits them. */
  readonly entryBudget: number | undefined;
  /** False where one call cannot map the memory before `address` and that from it on, though they adjoin in this process. */
  joins(address: number): boolean;
  /** @throws DmaError ERR_DMA_SYSCALL: the kernel's errno and what to do; nothing is mapped then */
  map(iova: number, address: number, length: number, prot: number): void;
  /** Every mapping inside [iova, + length), and none that reaches out. Bytes that were mapped. @throws DmaError */
  unmap(iova: number, length: number): number;
  /** Another device of the group comes in, which shares all that is mapped. Its file. @throws DmaError ERR_DMA_SYSCALL */
  attach(name: string, node: string | undefined): Fd;
  /** A device leaves, and its file is closed. Cannot fail. */
  detach(device: Fd): void;
  /** Every device leaves and the space ends, with all that is mapped. Cannot fail; a second time does nothing. */
  close(): void;
}

/** iommufd with VFIO device nodes (Linux 6.6 and later, where configured), or VFIO's type1 container with groups. */
export type BackEnd = "iommufd" | "type1";

/** Ranges as the kernel says them, the last byte included, as half-open ones of whole granules below 2^53. */
export function usableRanges(inclusive: readonly { start: number; last: number }[], granule: number): AddressRange[] {
  return inclusive
    .map(({ start, last }) => ({
      start: Math.ceil(start / granule) * granule,
      end: Math.floor((Math.min(last, 2 ** 53 - 1) + 1) / granule) * granule,
    }))
    .filter(({ start, end }) => end > start)
    .sort((a, b) => a.start - b.start);
}
