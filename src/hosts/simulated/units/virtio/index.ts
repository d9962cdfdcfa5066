/** A simulated virtio-iommu: it keeps the mappings that its driver tells it of. */
export { SimulatedVirtioIommu, type SimulatedVirtioOptions } from "./unit.ts";
