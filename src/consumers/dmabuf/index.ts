/** Shared buffers (dma-buf): storage of one owner, mapped by several devices, which moves and may be taken back. */
export { type AttachedBuffer, Attachment } from "./attachment.ts";
export * from "./descriptor.ts";
export { type BufferCounts, DmaBuf, isDmaBuf } from "./dma-buf.ts";
export * from "./errors.ts";
export type { Exporter, Teardown } from "./exporter.ts";
export { BarPages } from "./exporters/bar-pages.ts";
export {
  DeviceMemoryBuffers,
  type DeviceMemoryBuffersOptions,
  MigratingBuffer,
  type Place,
} from "./exporters/device-memory.ts";
export { type BarPart, barVectors, type PeerVectorsOptions, peerVectors } from "./exporters/peer-vectors.ts";
export { type HeapRequest, SystemHeap, type SystemHeapOptions } from "./exporters/system-heap.ts";
export { type FilePart, UserMemoryBuffers, type UserMemoryOptions } from "./exporters/user-memory.ts";
export { type BarRegion, type RegionExport, type RegionRange, VfioDeviceMemory } from "./exporters/vfio-bar.ts";
export { classOf, type Importer, type ImporterClass, type ImporterOps, type StorageChange } from "./importer.ts";
export { InPlaceMapping } from "./in-place-mapping.ts";
export { type BufferMapping, LONGEST_RANGE } from "./mapping.ts";
export { type MappingType, matchTypes, PhysList } from "./mapping-types.ts";
export { Fence, type FenceUse, Reservation } from "./reservation.ts";
export type { RouteKind } from "./routes.ts";
export { checkVectors, lengthOf, type StorageVec, sliceOf } from "./storage.ts";
