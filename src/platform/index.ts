/** What the stack asks of a machine. Interfaces only. */
export * from "./clock.ts";
export * from "./memory.ts";
export * from "./table-memory.ts";
export * from "./translation.ts";
