/** A page table put to work: domains and their invalidation. */
export * from "./address-space.ts";
export * from "./domain.ts";
export * from "./vtd/index.ts";
