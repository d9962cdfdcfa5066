/** Devices of the simulated machine. */
export * from "./block-store.ts";
export { CMB_BAR, NvmeController, type NvmeOptions as NvmeControllerOptions } from "./nvme.ts";
export * from "./nvme-faults.ts";
export type { NamespaceOptions } from "./nvme-namespace.ts";
