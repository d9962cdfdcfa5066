/** A simulated VT-d unit: it reads its tables and its queue from memory, with its own code. */
export type { VtdTraits } from "./capabilities.ts";
export type { DeviceTlb, DeviceTlbManners } from "./device-tlb.ts";
export type { PageRequest as SimulatedPageRequest } from "./page-request-ring.ts";
export type { QueueCounts, QueueMisbehaviour } from "./queue.ts";
export { StaleWindows } from "./stale-windows.ts";
export { type PageResponse, type SimulatedVtdOptions, SimulatedVtdUnit } from "./unit.ts";
export { UnitMemory } from "./unit-memory.ts";
