/** Driving a virtio-iommu: a unit that is told of each mapping. */
export { VirtioDmaDomain, type VirtioDmaDomainOptions } from "./dma-domain.ts";
export { VirtioPagingDomain, type VirtioPagingOptions } from "./paging-domain.ts";
export { type AttachedDomain, type VirtioIommuFault, VirtioIommuUnit } from "./unit.ts";
