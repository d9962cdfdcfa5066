/** An NVMe driver. */
export type { Cmb } from "./cmb.ts";
export * from "./command-mapping.ts";
export * from "./data-mapper.ts";
export * from "./descriptor-pool.ts";
export { DEFAULT_SGL_THRESHOLD, MapperCounters, type MapperOptions } from "./mapper-options.ts";
export * from "./namespace.ts";
export * from "./nvme.ts";
export * from "./options.ts";
export { PeerMemory } from "./peer-memory.ts";
export * from "./segment-records.ts";
export { type BufferPart, NvmeBuffer } from "./shared-buffer.ts";
