/** Checked mode: what was misused, by whom, and what is still mapped. */

export { MISUSE_NUMBERS, type MisuseCode } from "../base/index.ts";
export type { DebugCounters, DmaDebugOptions, MemoryRange } from "./debug-store.ts";
export { DeviceDebug } from "./device-debug.ts";
export { DmaDebug, type LiveRow } from "./dma-debug.ts";
export { DebugFinding, type FindingSite } from "./finding.ts";
export type { MappingKind } from "./records.ts";
