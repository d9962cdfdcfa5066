/** Processes of the simulated machine: memory, files, devices' memory, and what a program may. */
export type { Advice } from "./advise.ts";
export * from "./device-memory.ts";
export { type FileOptions, SimulatedFile } from "./file.ts";
export { Frames, type FramesOptions } from "./frames.ts";
export type { Access, MapOptions } from "./map-options.ts";
export * from "./process.ts";
export { type PagemapEntry, ProcessMemory } from "./process-memory.ts";
export { AREA, type MemorySettings } from "./structures.ts";
