/** GPUs: user pointers whose parts can go, shared virtual memory that migrates, memory of their own, page tables of their own. */
export { AREA_SHARE, LARGEST_AREA_BYTES } from "./area-pages.ts";
export type { BackingOptions, DevicePlace, PageBacking, PageSpan, PlaceOf } from "./backing.ts";
export { GPU_PAGES_FOUND } from "./bring-pages.ts";
export { type ChunkQuestion, chooseChunk, type Span } from "./chunk-choice.ts";
export { SpaceCounts } from "./counts.ts";
export { GpuBuffer } from "./gpu-buffer.ts";
export { GpuDevice, type GpuDeviceOptions } from "./gpu-device.ts";
export { GpuGroup } from "./gpu-group.ts";
export { type GpuAllocation, GpuMemory, type GpuMemoryOptions, SCRATCH_BYTES, type Timeslice } from "./gpu-memory.ts";
export { GpuSpace } from "./gpu-space.ts";
export { GpuTable } from "./gpu-table.ts";
export { KeptPages } from "./kept-pages.ts";
export { PackedPages } from "./packed-pages.ts";
export { type ReservationPolicy, SvmContext, type SvmOptions } from "./svm-context.ts";
export { SvmRange } from "./svm-range.ts";
export { UserPointer, type UserPointerOptions } from "./user-pointer.ts";
