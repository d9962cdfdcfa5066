/** Kernel logs: their lines, and what the kernel says of DMA in them. */
export * from "./facts.ts";
export { type LogClock, type LogFront, LogFronts } from "./line-front.ts";
export { KernelMessages } from "./messages.ts";
export { pciName, requesterName } from "./names.ts";
