/** Devices of the simulated machine. */
export * from "./block-store.ts";
export * from "./event-clock.ts";
export { CMB_BAR, NvmeController, type NvmeOptions } from "./nvme.ts";
export type { DmaPort } from "./nvme-data.ts";
export * from "./nvme-faults.ts";
export type { NamespaceOptions } from "./nvme-namespace.ts";
export * from "./nvme-pci.ts";
