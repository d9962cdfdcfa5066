/** VT-d's own structures: from the root table register to the tables of one device or PASID. */
export { FAULT_STATUS, GLOBAL, PAGE_REQUEST_STATUS, QUEUE_WIDE_DESCRIPTORS } from "./registers.ts";
export * from "./roots.ts";
export { decodeEntry, encodeEntry, reservedBits, type Structure } from "./structure.ts";
export * from "./translation.ts";
