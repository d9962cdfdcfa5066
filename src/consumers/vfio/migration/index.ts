/** A device that moves to another machine: states, data files, logs of writes. */
export * from "./buffers/index.ts";
export { DataFile } from "./data-file.ts";
export { DeviceMigration, type DeviceMigrationOptions } from "./device-migration.ts";
export * from "./dirty/index.ts";
export { DmaLogging, MOST_LOGGED_RANGES, type RangeToLog } from "./dma-logging.ts";
export * from "./machine/index.ts";
export { mergeRanges } from "./range-merge.ts";
export { codeOfState, hasState, isRunning, isSaving, nextState, pathBetween, stateOfCode } from "./states.ts";
export { dataFileIoctl, type FileTable, MigrationDoor, type MigrationDoorOptions } from "./uapi-door.ts";
export type { CallerMemory } from "./user-bitmap.ts";
export * from "./variant/index.ts";
