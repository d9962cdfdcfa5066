/** Which pages of a guest were written, and who knows it. */
export { DirtyBitmap } from "./dirty-bitmap.ts";
export { type DirtySource, type DirtyTable, deviceLogSource, iommuSource, type MarkPages } from "./dirty-sources.ts";
export { DirtyTracker, type SourceCounts } from "./dirty-tracker.ts";
export { type RamBlock, RamLayout } from "./ram-layout.ts";
