/** The front door: map in one shot, or reserve, link, sync and unlink. */
export * from "./dma.ts";
export { IovaRange } from "./iova-range.ts";
export * from "./vectors.ts";
