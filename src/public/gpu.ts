/**
 * GPUs: user pointers whose parts can go, shared virtual memory that migrates, memory of their own; and a simulated GPU.
 *
 * @module dmalink/gpu
 */
export {
  AREA_SHARE,
  type BackingOptions as GpuBackingOptions,
  type ChunkQuestion,
  chooseChunk,
  type DevicePlace,
  GPU_PAGES_FOUND,
  type GpuAllocation,
  GpuBuffer,
  GpuDevice,
  type GpuDeviceOptions,
  GpuGroup,
  GpuMemory,
  type GpuMemoryOptions,
  GpuSpace,
  GpuTable,
  KeptPages,
  LARGEST_AREA_BYTES,
  PackedPages,
  type PageBacking,
  type PageSpan,
  type PlaceOf,
  type ReservationPolicy,
  SCRATCH_BYTES,
  SpaceCounts,
  type Span as AddressSpan,
  SvmContext,
  type SvmOptions,
  SvmRange,
  type Timeslice,
  UserPointer,
  type UserPointerOptions,
} from "../consumers/gpu/index.ts";
export { type GpuCounts, GpuInterconnect, type GpuOptions, SimulatedGpu } from "../hosts/simulated/index.ts";
export {
  GPU_LINKS,
  GPU_WINDOW_BYTES,
  type GpuPlace,
  gpuPlace,
  gpuTable,
  linkedPage,
  localPage,
} from "../layouts/gpu/index.ts";
export type { GpuAdapter, GpuPageFault, GpuWork, GpuWorkResult } from "../platform/index.ts";
