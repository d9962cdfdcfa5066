/** From events to what they mean: requests and statistics. */

export * from "./address-space.ts";
export * from "./read-requests.ts";
export * from "./requests.ts";
export * from "./snapshot.ts";
export * from "./stats.ts";
export * from "./superpages.ts";
export * from "./table-tree.ts";
export * from "./tables.ts";
