/** Kernel logs: their lines, and what the kernel says of DMA in them. */

export { LOG_HEAD_BYTES, looksLikeKernelLog } from "./detect.ts";
export * from "./facts.ts";
export { type LogClock, type LogFront, LogFronts } from "./line-front.ts";
export { CONSOLE_EVENT, CONSOLE_FIELD, KernelLogTrace } from "./log-trace.ts";
export { KernelMessages } from "./messages.ts";
export { pciName, requesterName } from "./names.ts";
