/** A simulated machine: memory, an IOMMU that walks real tables, devices, and time that moves when told. */

export { buildBouncePool, type PoolDescription } from "./bounce-memory.ts";
export * from "./caches.ts";
export * from "./clock.ts";
export * from "./device.ts";
export * from "./devices/engine/engine.ts";
export * from "./devices/index.ts";
export * from "./encryption.ts";
export * from "./errors.ts";
export * from "./fabric.ts";
export * from "./host.ts";
export * from "./machine.ts";
export * from "./memory.ts";
export * from "./pci.ts";
export * from "./ram.ts";
export * from "./units/tables-unit.ts";
export * from "./units/virtio/index.ts";
export * from "./units/vtd/index.ts";
