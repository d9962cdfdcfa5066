/** Devices of the simulated machine. */
export * from "./block-store.ts";
export * from "./gpu/index.ts";
export * from "./migratable/index.ts";
export { CMB_BAR, type CmbUses } from "./nvme/cmb.ts";
export * from "./nvme/faults.ts";
export type { NamespaceOptions } from "./nvme/namespace.ts";
export { NvmeController } from "./nvme/nvme.ts";
export type { NvmeModelOptions } from "./nvme/options.ts";
export * from "./rnic/index.ts";
