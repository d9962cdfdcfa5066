/** Formats of RDMA: access bits, page lists, keys, packets, work queues. */
export * from "./access.ts";
export * from "./page-list.ts";
