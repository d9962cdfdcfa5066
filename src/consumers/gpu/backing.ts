/**
 * What stands behind a range of a GPU's addresses: the pages of the process, as far as they are known, and where the GPU finds each.
 *
 * Two forms have this interface, so that they can be compared: pages that keep their places ({@link KeptPages}), and the way of Linux 7.2,
 * which maps a range whole, packed, and drops it whole ({@link PackedPages}).
 */
import type { Direction, Dma } from "../../dma/index.ts";
import type { UserMemory } from "../../platform/index.ts";
import type { PfnWords } from "../hmm/index.ts";
import type { SpaceCounts } from "./counts.ts";
import type { GpuTable } from "./gpu-table.ts";

/** Where a page in memory of a device is for this GPU: its page in the GPU's tables, and whose allocation it is. */
export interface DevicePlace {
  /** undefined: this GPU has no way there. */
  readonly target: number | undefined;
  /** Compared by identity: which device, and which allocation of it. */
  readonly provider: object;
  readonly allocation: object | undefined;
}

/** Pages [first, end) of a process, by number. */
export interface PageSpan {
  readonly first: number;
  readonly end: number;
}

/** Says where pages of devices' own memory are. */
export type PlaceOf = (page: number) => DevicePlace | undefined;

/** What a backing is made with. */
export interface BackingOptions {
  readonly dma: Dma;
  readonly table: GpuTable;
  readonly memory: UserMemory;
  readonly counts: SpaceCounts;
  /** First byte in the process, whole pages. */
  readonly start: number;
  readonly pages: number;
  /** First page in the GPU's addresses. */
  readonly gpuPage: number;
  /** `to-device` for memory that the GPU only reads. */
  readonly direction: Direction;
  /**
   * `small`: entries of the IOMMU of 4 KiB, of which any can go alone. `large`: runs of pages share larger entries where they can; one that
   * loses a page is split first.
   */
  readonly leaves: "small" | "large";
  /** Where pages in memory of devices are. Absent: nowhere. */
  readonly placeOf?: PlaceOf;
  /** Pages of system and device, or of several allocations, in one range. */
  readonly allowMixed: boolean;
  /** Memory of other devices, as pages with addresses on the bus. Refused unless said, as Linux 7.2 does. */
  readonly allowPeers: boolean;
}

/** Pages of a process that a GPU may use, by index from the start. */
export interface PageBacking {
  /** First byte in the process. */
  readonly start: number;
  readonly pages: number;
  /** Bytes of address space that are reserved now. */
  readonly reservedBytes: number;
  /** Pages that are mapped for the bus now. */
  readonly linkedPages: number;
  /** The GPU can use page `index` now, and write it if that is asked. */
  has(index: number, write: boolean): boolean;
  /** Any page of [first, end) is known. */
  knows(first: number, end: number): boolean;
  /** Some page that is known lies in memory of a device. */
  readonly hasDevicePages: boolean;
  /**
   * Pages from `first` on are these: maps what is new and gives it to the GPU. Nothing may stop or change between the look and this call.
   *
   * @throws DmaError of the link, ERR_DMA_GPU_PEER, ERR_DMA_GPU_MIXED (EOPNOTSUPP), ERR_DMA_GPU_PLACE (EFAULT); nothing is changed then
   */
  commit(first: number, found: PfnWords): void;
  /**
   * The GPU uses pages [first, end) no more, and no device reaches them, when this returns. One invalidation of each TLB. Cannot fail.
   *
   * @param event what changes in the process: pages outside of it are dropped for no reason of their own, and counted so
   * @returns pages that were dropped
   */
  drop(first: number, end: number, event?: PageSpan): number;
  /** Everything goes. A second time does nothing. */
  release(): void;
}
