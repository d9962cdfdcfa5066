/** Checked mode: what was misused, by whom, and what is still mapped. */
export type { DeviceAccess } from "./access-checks.ts";
export { DmaDebug, type LiveRow } from "./debug.ts";
export { DebuggedPath } from "./debugged-path.ts";
export { DebuggedRange } from "./debugged-range.ts";
export { DeviceDebug } from "./device-debug.ts";
export type { DebugCounters, DmaDebugOptions, MemoryRange } from "./facility.ts";
export { FINDING_NUMBERS, Finding, type FindingCode, type FindingSite } from "./finding.ts";
export type { MappingKind } from "./records.ts";
