/** The front door: map in one shot, or reserve, link, sync and unlink. */

export {
  ATTRIBUTE_BITS,
  attributeBits,
  attributesOf,
  type DmaAttributes,
  skipsMaintenance,
} from "../base/index.ts";
export { piecesOf } from "./checks.ts";
export type { MappingContract } from "./contract.ts";
export { ALL_ADDRESSES, type DeviceOptions, DmaDevice, type DmaLimits, type DmaMachine } from "./device.ts";
export { type BatchLimits, DmaBatch } from "./disjoint/batch.ts";
export { type Chunk, ChunkIndex } from "./disjoint/chunk-index.ts";
export type { LinearOptions } from "./disjoint/map-linear.ts";
export type { VecsMapping } from "./disjoint/map-vecs.ts";
export * from "./dma.ts";
export { CoherentMemory, DmaMapping, ScatterlistMapping } from "./handles.ts";
export type { Host, HostCapabilities, OpenDevice, OpenDeviceOptions } from "./host.ts";
export { ConfidentialMemory, hiddenFrom } from "./path/confidential.ts";
export { Granules } from "./path/granules.ts";
export type { MappedList, Path } from "./path/path.ts";
export { type Terms, termsOf } from "./terms.ts";
export { IovaRange } from "./two-step/iova-range.ts";
export * from "./vectors.ts";
export type { AllocationKind, DeviceWatch, DmaWatcher } from "./watch.ts";
