/**
 * Misuse of DMA mapping: one name for each way, whoever notices it. Checked mode finds it in a run, the kernel's own
 * debugging reports it in a log, and recordings of a kernel with that debugging hold its reports.
 *
 * Numbers 1 to 23 are the errors of Linux's DMA debugging, in its order; 24 to 30 are misuse that Linux does not see.
 * Specified by: behaviour and messages of Linux 2.6.30 to 7.2 (CONFIG_DMA_API_DEBUG).
 */

/** Every kind of misuse, and its number. */
export const MISUSE_NUMBERS = {
  /** The facility has no room for another mapping and stops. */
  "store-full": 0,
  /** An unmap of the address that stands for a failed map. */
  "free-invalid": 1,
  /** An unmap of what is not mapped, was unmapped before, or belongs to another device. */
  "free-unknown": 2,
  /** An unmap with another length than the map had. */
  "different-size": 3,
  /** An unmap by a call of another kind than the map: a list as a single mapping, coherent memory as streaming. */
  "wrong-function": 4,
  /** Coherent memory given back with another CPU address than it was allocated at. */
  "different-cpu-address": 5,
  /** A scatterlist unmapped with another number of entries than it was mapped with. */
  "different-entry-count": 6,
  /** An unmap with another direction than the map had. */
  "different-direction": 7,
  /** The driver unmapped without ever asking whether the map had failed. */
  "map-error-unchecked": 8,
  /** An unmap with other attributes than the map had, of those that matter. */
  "different-attributes": 9,
  /** A cache line is mapped twice, and a device may write it. */
  "overlapping-cache-line": 10,
  /** A cache line is mapped more often at once than the facility can count. */
  "too-many-overlaps": 11,
  /** The memory mapped lies on a stack. */
  "maps-stack": 12,
  /** The memory mapped is the kernel's own code or constants. */
  "maps-text": 13,
  /** The address mapped is none of the CPU's direct map. */
  "maps-invalid": 14,
  /** Memory mapped as registers of a device (the MMIO attribute) is RAM. */
  "mmio-of-ram": 15,
  /** A sync of what is not mapped. */
  "sync-unknown": 16,
  /** A sync of bytes beyond the end of the mapping. */
  "sync-outside": 17,
  /** A sync with another direction than the map had. */
  "sync-different-direction": 18,
  /** A sync for the CPU of memory that the device only reads. */
  "sync-read-only-for-cpu": 19,
  /** A sync for the device of memory that the device only writes. */
  "sync-write-only-for-device": 20,
  /** A segment of a list is longer than the device said it can take. */
  "segment-too-long": 21,
  /** A segment of a list crosses a boundary that the device said it cannot cross. */
  "segment-across-boundary": 22,
  /** The driver left its device with mappings alive. */
  "unbound-with-live": 23,
  /** Two-step: a link to a range that was given back, beyond its end, or over what is linked. */
  "link-outside-state": 24,
  /** Two-step: an unlink of bytes that are not linked. */
  "unlink-hole": 25,
  /** Two-step: a destroy that says another number of linked bytes than are linked. */
  "destroy-wrong-length": 26,
  /** The device accessed bytes that are linked and not yet synced. */
  "access-before-sync": 27,
  /** The device accessed memory after its unmap. */
  "access-after-unmap": 28,
  /** A device used a peer's bus address where its requests go through an IOMMU. */
  "bus-address-translated": 29,
  /** Private memory of a confidential guest was mapped for, or reached by, a device outside its trust. */
  "private-to-untrusted": 30,
} as const;

/** A kind of misuse; {@link MISUSE_NUMBERS} has the numbers of docs/dma-debugging.md. */
export type MisuseCode = keyof typeof MISUSE_NUMBERS;

/** Words of the kernel's reports that only one kind of misuse has; the more special first. */
export const KERNEL_REPORTS: readonly (readonly [words: string, code: MisuseCode])[] = [
  ["tries to free an invalid DMA memory address", "free-invalid"],
  ["tries to free DMA memory it has not allocated", "free-unknown"],
  ["frees DMA memory with different size", "different-size"],
  ["frees DMA memory with wrong function", "wrong-function"],
  ["frees DMA memory with different CPU address", "different-cpu-address"],
  ["frees DMA sg list with different entry count", "different-entry-count"],
  ["frees DMA memory with different direction", "different-direction"],
  ["frees DMA memory with different attributes", "different-attributes"],
  ["failed to check map error", "map-error-unchecked"],
  ["maps memory from stack", "maps-stack"],
  ["maps memory from kernel text or rodata", "maps-text"],
  ["maps memory from vmalloc", "maps-invalid"],
  ["for RAM address", "mmio-of-ram"],
  ["tries to sync DMA memory it has not allocated", "sync-unknown"],
  ["syncs DMA memory outside allocated range", "sync-outside"],
  ["syncs DMA memory with different direction", "sync-different-direction"],
  ["syncs device read-only DMA memory for cpu", "sync-read-only-for-cpu"],
  ["syncs device write-only DMA memory to device", "sync-write-only-for-device"],
  ["syncs DMA sg list with different entry count", "different-entry-count"],
  ["mapping sg segment longer than device claims to support", "segment-too-long"],
  ["mapping sg segment across boundary", "segment-across-boundary"],
  ["has pending DMA allocations while released from device", "unbound-with-live"],
  ["cacheline tracking EEXIST", "overlapping-cache-line"],
  ["overlapping mappings of cacheline", "too-many-overlaps"],
  ["debugging out of memory", "store-full"],
  ["cacheline tracking ENOMEM", "store-full"],
];
