/** Driving a virtio-iommu: a unit that is told of each mapping. */
export { VirtioDomain, type VirtioDomainOptions } from "./domain.ts";
export { type AttachedDomain, type VirtioIommuFault, VirtioIommuUnit } from "./unit.ts";
