/** A page table put to work: domains and their invalidation. */
export type { AddressSpace, LinkCursor } from "./address-space.ts";
export { DmaDomain, type DmaDomainOptions, INTERRUPT_WINDOW } from "./dma-domain.ts";
export { FAULT_EVENT_LIMIT, FaultEvents } from "./fault-events.ts";
export { PageRequestGroups } from "./page-request-groups.ts";
export { PagingDomain, type PagingDomainOptions } from "./paging-domain.ts";
export {
  PASID_LIMIT,
  PasidAllocator,
  type PasidCandidate,
  type PasidGroup,
  refusePasid,
} from "./pasids.ts";
export * from "./virtio/index.ts";
export * from "./vtd/index.ts";
