/** The front door: map in one shot, or reserve, link, sync and unlink. */
export { type BatchLimits, DmaBatch } from "./disjoint/batch.ts";
export { type Chunk, ChunkIndex } from "./disjoint/chunk-index.ts";
export { ConfidentialMemory } from "./path/confidential.ts";
export {
  type DebugCounters,
  type DeviceAccess,
  type DeviceDebug,
  DmaDebug,
  type DmaDebugOptions,
  FINDING_NUMBERS,
  Finding,
  type FindingCode,
  type LiveRow,
  type MemoryRange,
} from "../dma-debug/index.ts";
export { ALL_ADDRESSES, type DeviceOptions, DmaDevice, type DmaLimits, type DmaMachine } from "./device.ts";
export * from "./dma.ts";
export { IovaRange } from "./two-step/iova-range.ts";
export type { LinearOptions } from "./disjoint/map-linear.ts";
export { CoherentMemory, DmaMapping, ScatterlistMapping } from "./handles.ts";
export type { VecsMapping } from "./disjoint/map-vecs.ts";
export * from "./vectors.ts";
