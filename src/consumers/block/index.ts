/** The block layer: bios, requests, and the DMA iterator that maps them. */
export * from "./bio.ts";
export * from "./dma-iterator.ts";
export * from "./dma-ops.ts";
export * from "./gap.ts";
export * from "./limits.ts";
export * from "./older-ops.ts";
export * from "./physical-vectors.ts";
export * from "./request.ts";
export * from "./status.ts";
export * from "./vectors.ts";
