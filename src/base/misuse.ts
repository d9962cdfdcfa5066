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
  "free-invalid": 1,
  "free-unknown": 2,
  "different-size": 3,
  "wrong-function": 4,
  "different-cpu-address": 5,
  "different-entry-count": 6,
  "different-direction": 7,
  "map-error-unchecked": 8,
  "different-attributes": 9,
  "overlapping-cache-line": 10,
  "too-many-overlaps": 11,
  "maps-stack": 12,
  "maps-text": 13,
  "maps-invalid": 14,
  "mmio-of-ram": 15,
  "sync-unknown": 16,
  "sync-outside": 17,
  "sync-different-direction": 18,
  "sync-read-only-for-cpu": 19,
  "sync-write-only-for-device": 20,
  "segment-too-long": 21,
  "segment-across-boundary": 22,
  "unbound-with-live": 23,
  "link-outside-state": 24,
  "unlink-hole": 25,
  "destroy-wrong-length": 26,
  "access-before-sync": 27,
  "access-after-unmap": 28,
  "bus-address-translated": 29,
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
