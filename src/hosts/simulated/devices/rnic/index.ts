/** A simulated RDMA adapter, and the wire that it speaks over. */
export type { MissingBlock, Outcome, RnicRegions } from "./regions.ts";
export * from "./rnic.ts";
export * from "./wire.ts";
