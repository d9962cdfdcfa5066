/**
 * What the DMA layer asks of whoever looks over its calls ({@link DmaOptions.debug}).
 *
 * Idea: the interface is the DMA layer's, and a watcher implements it. A watcher may wrap a device's path and supply its
 * own class of ranges, so that a device without a watcher pays nothing; the few calls that go through neither are reported
 * to it one by one. Promises nothing about what a watcher does; it must not throw, nor change what a call does.
 * `dma-debug/` is one.
 */
import type { IovaPage } from "../base/index.ts";
import type { AddressSpace } from "../iommu/index.ts";
import type { DmaDevice } from "./device.ts";
import type { Granules } from "./path/granules.ts";
import type { Path } from "./path/path.ts";
import type { Terms } from "./terms.ts";
import type { IovaRange } from "./two-step/iova-range.ts";

/** Looks over any number of devices. */
export interface DmaWatcher {
  /** `device` is looked over from now on. @param domain its address space, if it is translated */
  watch(device: DmaDevice, domain: AddressSpace | undefined): DeviceWatch;
}

/** Memory that was allocated: for both without syncs, with syncs, or as a list. */
export type AllocationKind = "coherent" | "noncoherent" | "scatter-gather";

/** Looks over one device. Addresses and lengths are bytes. */
export interface DeviceWatch {
  /** A path that does what `path` does, and sees every call. */
  path(path: Path): Path;
  /** The range over pages that are reserved already, if it is to be seen; undefined: a plain one will do. */
  range(granules: Granules, page: IovaPage, pages: number, inside: number, length: number): IovaRange | undefined;
  /** The caller asked whether mapping `address` had failed. */
  errorChecked(address: number): void;
  /** An unmap with `shared` behind an IOMMU: it does nothing, and the mapping stays. */
  unmappedAsShared(address: number, length: number, terms: Terms): void;
  /** Memory was allocated. `phys` is where its first byte lies. */
  allocated(kind: AllocationKind, address: number, length: number, phys: number, terms: Terms): void;
  /** Memory is going to be freed. */
  freeing(kind: AllocationKind, address: number, length: number, phys: number, terms: Terms): void;
}
