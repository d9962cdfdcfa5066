/** A simulated machine: memory, an IOMMU that walks real tables, devices, and time that moves when told. */
export * from "./clock.ts";
export * from "./engine.ts";
export * from "./memory.ts";
export * from "./unit.ts";
