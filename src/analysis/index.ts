/** From events to what they mean: requests and statistics. */

export * from "./address-space.ts";
export * from "./check-trace.ts";
export * from "./debugfs-tables.ts";
export * from "./device-stats.ts";
export { NOTHING_MAPPED } from "./device-use.ts";
export * from "./dma-dump.ts";
export type { KernelSummary, UnknownKernelLine } from "./faults/kernel-told.ts";
export { type KernelLog, type LogClockUsed, readKernelLog } from "./faults/log-beside.ts";
export * from "./findings/finding.ts";
export type { Rule } from "./findings/rule.ts";
export { RULES } from "./findings/rules.ts";
export * from "./follow.ts";
export type { LifetimeCounts, LifetimeSink } from "./lifetimes/lifetime-counts.ts";
export { KINDS, type Kind, LifetimeTable, NO_DEVICE, NO_DIRECTION, REACHED } from "./lifetimes/table.ts";
export type { LiveAtEnd } from "./live-list.ts";
export * from "./recorded-machine.ts";
export * from "./requests.ts";
export { isSelective, type Selection, Selector } from "./selection.ts";
export * from "./smmu-tables.ts";
export * from "./snapshot.ts";
export * from "./start-state.ts";
export * from "./stats.ts";
export * from "./superpages.ts";
export * from "./table-tree.ts";
export * from "./tables.ts";
export { registersOf, type UnitRegisters, unitTables } from "./unit-registers.ts";
export { ENTRY_BUDGET, type UserMappings } from "./user-mappings.ts";
