/**
 * What happens in the stack, step by step, for whoever wants to look: a recorder, a judge, a picture.
 *
 * Idea: each part calls the one method that names its step, right after the step. All are optional, and a part whose
 * observer is `undefined` pays one comparison. Addresses are bytes where they are called iova, phys or address, and
 * pages (4 KiB) where they are called page; ranges are [start, last] where hardware has it so.
 * Promises nothing about what the observer does; it must not call back into the stack, nor throw.
 */
import type { Direction } from "../base/index.ts";

export interface Observer {
  // The address space of a device.
  /** `page` is 0 if there was no room below `limitPage`. */
  iovaAllocated?(pages: number, limitPage: number, page: number): void;
  iovaFreed?(page: number, pages: number): void;
  /** Lazy mode: the range waits for a flush. */
  flushQueued?(page: number, pages: number): void;

  // The page table of a domain.
  mapped?(iova: number, phys: number, bytes: number, prot: number): void;
  unmapped?(iova: number, length: number, bytes: number): void;
  lookedUp?(iova: number): void;

  // Invalidation.
  /** New entries are made visible to the unit. */
  mapSynced?(iova: number, length: number): void;
  /** The gather of an unmap is issued. */
  iotlbSynced?(start: number, last: number, leavesOnly: boolean): void;
  /** The range for one cache of the unit, widened to the block [`address`, 2^order pages). */
  cacheInvalidated?(why: "unmap" | "map", start: number, last: number, address: number, order: number): void;
  domainInvalidated?(): void;
  /** `words` from `at` on: `count` descriptors of `slotWords` 32-bit words each, as written to the queue, without the wait. */
  descriptorsSubmitted?(words: Uint32Array, at: number, count: number, slotWords: number): void;

  // Bounce buffers. `offset` is in the pool.
  /** A mapping is going to be bounced; `address` is that of the memory. */
  bounceAsked?(address: number, size: number): void;
  slotsTaken?(phys: number, size: number, alignMask: number, offset: number | undefined): void;
  bounceCopied?(offset: number, size: number, way: "in" | "out"): void;
  slotsFreed?(offset: number): void;

  // Caches of the CPU, for devices that do not look into them.
  cacheForDevice?(phys: number, length: number, direction: Direction): void;
  cacheForCpu?(phys: number, length: number, direction: Direction): void;
  cacheBarrier?(): void;
}
