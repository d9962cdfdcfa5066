/** Formats of RDMA: access bits, page lists, keys, packets, work queues. */
export * from "./access.ts";
export * from "./packets.ts";
export * from "./page-list.ts";
export * from "./work-queue.ts";
