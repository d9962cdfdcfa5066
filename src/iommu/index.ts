/** A page table put to work: domains and their invalidation. */
export * from "./domain.ts";
export * from "./vtd/index.ts";
