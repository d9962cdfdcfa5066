/** A process's memory as a device's page table has it: range faults, mirrors, and the DMA map over one reserved range. */
export * from "./errors.ts";
export * from "./range-fault.ts";
export * from "./words.ts";
