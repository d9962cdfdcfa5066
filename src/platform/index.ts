/** What the stack asks of a machine. Interfaces only. */
export type { DeviceAccess } from "./access.ts";
export * from "./caches.ts";
export * from "./clock.ts";
export * from "./device.ts";
export * from "./encryption.ts";
export * from "./memory.ts";
export * from "./page-requests.ts";
export * from "./pages.ts";
export * from "./pci.ts";
export * from "./table-memory.ts";
export * from "./translation.ts";
export type { VtdRegisters } from "./vtd-registers.ts";
