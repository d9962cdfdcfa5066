/** Page tables: one walk, one map, one unmap, for every format. */
export { Arena, type ArenaOptions } from "./arena.ts";
export { FrameList, Gather } from "./gather.ts";
export { PageSizes } from "./page-sizes.ts";
export { PageTable, type PageTableOptions, type TableEntry, type Translation } from "./page-table.ts";
export { LeafCursor, type TableEvents } from "./tree.ts";
