/** Checked mode: what was misused, by whom, and what is still mapped. */
export type { DeviceAccess } from "./access-checks.ts";
export { DmaDebug, type LiveRow } from "./dma-debug.ts";
export { DebuggedPath } from "./watched-path.ts";
export { DebuggedRange } from "./watched-range.ts";
export { DeviceDebug } from "./device-debug.ts";
export type { DebugCounters, DmaDebugOptions, MemoryRange } from "./debug-store.ts";
export { FINDING_NUMBERS, Finding, type FindingCode, type FindingSite } from "./finding.ts";
export type { MappingKind } from "./records.ts";
