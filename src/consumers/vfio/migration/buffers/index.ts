/** Buffers for the state of a device. */
export * from "./buffer-cost.ts";
export { BufferCounters, BufferPool } from "./buffer-pool.ts";
export { type BufferDirection, type BufferHost, DataBuffer, type DeviceKeys } from "./data-buffer.ts";
export { deviceGone } from "./errors.ts";
export { scatterLinks, scatterTableBytes } from "./scatter-table.ts";
