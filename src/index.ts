/**
 * dmalink: the two-step DMA mapping API in TypeScript.
 *
 * Reserve address space once, then link, sync and unlink physical memory in it; with the IOVA allocator, the IOMMU page
 * tables, a simulated machine and a reader of recorded kernel traces below and around it.
 */
export * from "./analysis/index.ts";
export * from "./base/index.ts";
export { Dma, type DmaLimits, DmaMapping, type DmaVec, IovaRange, type PhysVec } from "./dma/index.ts";
export * from "./hosts/simulated/index.ts";
export { type DomainOptions, IommuDomain } from "./iommu/index.ts";
export * from "./layouts/pagetable/index.ts";
export { Arena, PageTable } from "./pagetable/index.ts";
export * from "./replay/index.ts";
export * from "./trace/index.ts";
