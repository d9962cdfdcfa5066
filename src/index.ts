/**
 * dmalink: the two-step DMA mapping API in TypeScript.
 *
 * Reserve address space once, then link, sync and unlink physical memory in it. Below it: domains, IOVA allocation and
 * page tables. A simulated machine is in `dmalink/sim`, the block layer in `dmalink/block` and a driver for NVMe disks in
 * `dmalink/nvme`; recorded kernel traces are read in `dmalink/trace`, understood in
 * `dmalink/analysis`, and replayed in `dmalink/replay`.
 */
export * from "./base/index.ts";
export * from "./dma/index.ts";
export * from "./dma-debug/index.ts";
export * from "./iommu/index.ts";
export * from "./iova/index.ts";
export * from "./layouts/pagetable/index.ts";
export * from "./layouts/pci/index.ts";
export * from "./p2p/index.ts";
export * from "./pagetable/index.ts";
export * from "./platform/index.ts";
export * from "./swiotlb/index.ts";
