/** A page table put to work: domains and their invalidation. */
export type { AddressSpace, LinkCursor } from "./address-space.ts";
export { DmaDomain, type DmaDomainOptions, INTERRUPT_WINDOW } from "./dma-domain.ts";
export { PagingDomain, type PagingDomainOptions } from "./paging-domain.ts";
export * from "./vtd/index.ts";
