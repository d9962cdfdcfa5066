/** Invalidation: what a driver sends to an IOMMU so that it forgets translations, for VT-d, AMD and Arm SMMUv3. */
export * from "./amd-commands.ts";
export { blockPages, blockStart, coveringOrder, END_OF_PAGES, EVERYTHING, pieceOrder } from "./blocks.ts";
export { NO_PASID } from "./le-words.ts";
export * from "./smmu-commands.ts";
export * from "./vtd-decode.ts";
export * from "./vtd-descriptors.ts";
export * from "./vtd-range.ts";
