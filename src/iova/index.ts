/** Who owns which part of a device's address space. */
export * from "./allocator.ts";
export * from "./errors.ts";
export * from "./flush-queue.ts";
export * from "./space.ts";
