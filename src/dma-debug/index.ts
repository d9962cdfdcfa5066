/** Checked mode: what was misused, by whom, and what is still mapped. */
export type { DebugCounters, DmaDebugOptions, MemoryRange } from "./debug-store.ts";
export { DeviceDebug } from "./device-debug.ts";
export { DmaDebug, type LiveRow } from "./dma-debug.ts";
export { DebugFinding, FINDING_NUMBERS, type FindingCode, type FindingSite } from "./finding.ts";
export type { MappingKind } from "./records.ts";
