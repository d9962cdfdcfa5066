/**
 * What happens in the stack, step by step, for whoever wants to look: a recorder, a judge, a picture.
 *
 * Idea: each part calls the one method that names its step, right after the step. All are optional, and a part whose
 * observer is `undefined` pays one comparison. Addresses are bytes where they are called iova, phys or address, and
 * pages (4 KiB) where they are called page; ranges are [start, last] where hardware has it so.
 * Promises nothing about what the observer does; it must not call back into the stack, nor throw.
 */
import type { Direction } from "./direction.ts";

/**
 * Hears of each step, right after it. Every method is optional; it must not call back into the stack, nor throw.
 * Addresses are bytes; what is called page is a page number.
 */
export interface Observer {
  // The address space of a device.
  /** `page` is 0 if there was no room below `limitPage`. */
  iovaAllocated?(pages: number, limitPage: number, page: number): void;
  /** `pages` from `page` on can be given out again. */
  iovaFreed?(page: number, pages: number): void;
  /** Lazy mode: the range waits for a flush. */
  flushQueued?(page: number, pages: number): void;

  // The page table of a domain.
  /** [iova, + bytes) translates to [phys, + bytes); `prot` are the permission bits of the entries. */
  mapped?(iova: number, phys: number, bytes: number, prot: number): void;
  /**
   * `length` bytes from `iova` on were asked to be unmapped, and `bytes` were: fewer at a hole, none where only the
   * attempt is shown.
   */
  unmapped?(iova: number, length: number, bytes: number): void;
  /** Software asked what `iova` translates to (the kernel does so before it unmaps one mapping). */
  lookedUp?(iova: number): void;

  // Invalidation.
  /** New entries are made visible to the unit. */
  mapSynced?(iova: number, length: number): void;
  /** The gather of an unmap is issued. */
  iotlbSynced?(start: number, last: number, leavesOnly: boolean): void;
  /** The range for one cache of the unit, widened to the block [`address`, 2^order pages). */
  cacheInvalidated?(why: "unmap" | "map", start: number, last: number, address: number, order: number): void;
  /** Every translation of the domain was dropped, as a flush queue does. */
  domainInvalidated?(): void;
  /** `words` from `at` on: `count` descriptors of `slotWords` 32-bit words each, as written to the queue, without the wait. */
  descriptorsSubmitted?(words: Uint32Array, at: number, count: number, slotWords: number): void;

  // Requests to a unit that keeps the mappings itself: `count` pages of `pageBytes` from `iova` on.
  /** The unit is asked to map [iova, + count × pageBytes) to [phys, + count × pageBytes). */
  mapRequested?(iova: number, phys: number, pageBytes: number, count: number): void;
  /** The unit is asked to unmap [iova, + count × pageBytes). */
  unmapRequested?(iova: number, pageBytes: number, count: number): void;

  // Bounce buffers. `offset` is in the pool.
  /** A mapping is going to be bounced; `address` is that of the memory. */
  bounceAsked?(address: number, size: number): void;
  /**
   * `size` bytes of the pool stand in for memory at `phys`, with its low bits under `alignMask`; `offset` undefined: no
   * room.
   */
  slotsTaken?(phys: number, size: number, alignMask: number, offset: number | undefined): void;
  /** `size` bytes were copied into the pool (`in`), for the device to read, or out of it (`out`), for the CPU. */
  bounceCopied?(offset: number, size: number, way: "in" | "out"): void;
  /** The slots of the buffer at `offset` can be given out again. */
  slotsFreed?(offset: number): void;

  // The calls of the DMA API themselves, as the kernel's own events name them. Announced where the kernel does.
  /** A call that the kernel has an event for, with what the event shows. A failed map has no address. */
  dmaCalled?(event: DmaEvent): void;
  /** Two-step calls, for which the kernel has no event. */
  twoStepCalled?(event: TwoStepEvent): void;

  // Caches of the CPU, for devices that do not look into them.
  /** The CPU gave [phys, + length) to the device: caches are written back, and dropped where the device will write. */
  cacheForDevice?(phys: number, length: number, direction: Direction): void;
  /** The CPU took [phys, + length) back: what its caches hold of it is dropped, unless the device only read. */
  cacheForCpu?(phys: number, length: number, direction: Direction): void;
  /** The CPU waited until all cache maintenance so far had taken effect. */
  cacheBarrier?(): void;
}

/** One event of `dma:*`. Fields that an event does not have are left out; an address is undefined if the call failed. */
export interface DmaEvent {
  /** Which call, named as the kernel's event. */
  readonly name: DmaEventName;
  /** The device, as the kernel prints it: `ssss:bb:dd.f` for PCI. */
  readonly device: string;
  /** Of the mapping, as the call said it. */
  readonly direction: Direction;
  /** Attribute bits as Linux numbers them. */
  readonly attributes: number;
  /** Where the device finds the memory, bytes. */
  readonly address?: number | undefined;
  /** Bytes of the mapping, or of the part that is synced. */
  readonly length?: number;
  /** Where the memory lies for the CPU, bytes. */
  readonly phys?: number;
  /** Scatterlists: physical addresses of the input, addresses and lengths of the output. */
  readonly physAddresses?: readonly number[];
  /** Scatterlists: where each segment lies for the device, bytes. */
  readonly addresses?: readonly number[];
  /** Scatterlists: bytes of each segment, in the order of `addresses`. */
  readonly lengths?: readonly number[];
  /** Scatterlists: why the map failed, by name. */
  readonly errno?: string;
}

/** Events of the DMA API, as the kernel names them. */
export type DmaEventName =
  | "dma_map_phys"
  | "dma_unmap_phys"
  | "dma_map_sg"
  | "dma_map_sg_err"
  | "dma_unmap_sg"
  | "dma_sync_single_for_cpu"
  | "dma_sync_single_for_device"
  | "dma_sync_sg_for_cpu"
  | "dma_sync_sg_for_device"
  | "dma_alloc"
  | "dma_free"
  | "dma_alloc_pages"
  | "dma_free_pages"
  | "dma_alloc_sgt"
  | "dma_free_sgt";

/** One two-step call. `address` is that of the range; `offset` counts from it. */
export interface TwoStepEvent {
  /** Which call, named as the kernel's function. */
  readonly name:
    | "dma_iova_try_alloc"
    | "dma_iova_link"
    | "dma_iova_sync"
    | "dma_iova_unlink"
    | "dma_iova_free"
    | "dma_iova_destroy";
  /** The device, as the kernel prints it: `ssss:bb:dd.f` for PCI. */
  readonly device: string;
  /** Where the range begins for the device, bytes; 0 if none was given. */
  readonly address: number;
  /** Bytes reserved. */
  readonly reserved: number;
  /** Where in the range the call works, bytes; absent for calls about the range as a whole. */
  readonly offset?: number;
  /** Bytes the call is about, from `offset` on. */
  readonly length?: number;
  /** Link, and reservation: the memory, bytes. */
  readonly phys?: number;
  /** Who may write, as the call said it; absent where the call has none. */
  readonly direction?: Direction;
  /** Attribute bits as Linux numbers them; absent where the call has none. */
  readonly attributes?: number;
  /**
   * `dma_iova_try_alloc`: false if there was no room. The others are announced before they do anything; a link that then
   * fails is announced once more, with false.
   */
  readonly ok?: boolean;
}
