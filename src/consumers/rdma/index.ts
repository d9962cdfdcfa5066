/** RDMA: regions of memory under keys, page lists, queue pairs, and transfers without scatterlists. */
export { checkAccess, DEFAULT_ACCESS, type RegionCapabilities } from "./access.ts";
export type { Advice, AdvisedPiece } from "./advise.ts";
export * from "./backing.ts";
export { BufferBacking, type BufferBackingOptions } from "./buffer-backing.ts";
export { type BufferLife, BufferMemory, type BufferMemoryOptions } from "./buffer-memory.ts";
export * from "./completion-queue.ts";
export * from "./device.ts";
export { sharedBufferOf } from "./dma-buf.ts";
export * from "./on-demand.ts";
export { OnDemandBacking, type OnDemandBackingOptions } from "./on-demand-backing.ts";
export { type BlockedRuns, eachBlock } from "./page-list.ts";
export * from "./page-size.ts";
export { PinnedMemory, type PinnedMemoryOptions } from "./pinned-memory.ts";
export * from "./queue-pair.ts";
export * from "./region.ts";
export { RegistrationPool, type RegistrationPoolOptions, type TransferRegions } from "./registration-pool.ts";
export * from "./shared-buffer.ts";
export * from "./transfer.ts";
