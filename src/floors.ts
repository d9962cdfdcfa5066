/**
 * The floors of the house: who may import whom, as data. `tools/floors.ts` reads it and fails the check on a breach.
 *
 * A folder imports only from floors below its own; folders on one floor do not import each other, except inside
 * `consumers`, where a later one may use an earlier one. From outside, a folder is entered by its `index.ts` only; each file of
 * `public` is a face, that of one module of the package.
 * A debt is listed here with its reason, never hidden.
 */
export const FLOORS: readonly (readonly string[])[] = [
  ["base"],
  ["layouts"],
  ["platform", "trace"],
  ["iova", "pagetable", "swiotlb", "p2p", "analysis"],
  ["iommu"],
  ["dma"],
  ["consumers", "hosts", "dma-debug"],
  ["replay", "simulation"],
  ["report"],
  ["public"],
  ["apps"],
];

/** Rooms that are split into rooms of their own: each folder inside has a face of its own. */
export const SPLIT: readonly string[] = ["consumers", "hosts", "apps", "layouts"];

/** The order inside `consumers`: a later one may import an earlier one. */
export const CONSUMERS: readonly (readonly string[])[] = [
  ["block", "dmabuf", "hmm"],
  ["iommufd"],
  ["nvme", "rdma", "gpu", "vfio", "tee"],
];

/** The only places that may use Node's own modules (hosts/linux drives real devices); the rest also runs in a browser. */
export const NODE_ALLOWED: readonly string[] = ["hosts/linux", "apps/cli"];

/** Breaches that are known and why they stand. */
export const DEBTS: readonly { from: string; to: string; reason: string }[] = [];
