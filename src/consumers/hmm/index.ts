/** A process's memory as a device's page table has it: range faults, mirrors, and the DMA map over one reserved range. */
export { HmmDmaMap, type HmmDmaMapOptions } from "./dma-map.ts";
export * from "./errors.ts";
export { LOOKED_UP, Mirror, type MirrorDriver, type MirrorOptions } from "./mirror.ts";
export * from "./range-fault.ts";
export * from "./words.ts";
