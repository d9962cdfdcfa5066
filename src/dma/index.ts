/** The front door: map in one shot, or reserve, link, sync and unlink. */
export { type BatchLimits, DmaBatch } from "./batch.ts";
export { type Chunk, ChunkIndex } from "./chunk-index.ts";
export { ConfidentialMemory } from "./confidential.ts";
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
} from "./debug/index.ts";
export { ALL_ADDRESSES, type DeviceOptions, DmaDevice, type DmaLimits, type DmaMachine } from "./device.ts";
export * from "./dma.ts";
export { IovaRange } from "./iova-range.ts";
export type { LinearOptions } from "./linear.ts";
export { CoherentMemory, DmaMapping, ScatterlistMapping } from "./mappings.ts";
export type { VecsMapping } from "./vecs.ts";
export * from "./vectors.ts";
