/** What buffers of a device's state refuse. One function per error. */
import { DmaError } from "../../../../base/index.ts";

/** A buffer that cannot be made, or not registered. */
export const badBuffer = (what: string): DmaError =>
  new DmaError("ERR_DMA_BUFFER", "EINVAL", `${what}: it needs a size, a direction, and to be registered once`);

/** No memory for a buffer. */
export const noPages = (needed: number, found: number): DmaError =>
  new DmaError("ERR_DMA_BUFFER_MEMORY", "ENOMEM", `${needed} pages are needed, and only ${found} were found`, {
    needed,
    found,
  });

/** The device that would use the buffer was detached. */
export const deviceGone = (): DmaError =>
  new DmaError("ERR_DMA_DEVICE_GONE", "ENOTCONN", "the device is not there any more");

/** Mapping errors that say: the device would see a copy, or needs syncs, or cannot come near. */
const COPIES: ReadonlySet<string> = new Set([
  "ERR_DMA_NOT_COHERENT",
  "ERR_DMA_BOUNCE_FORBIDDEN",
  "ERR_DMA_REACH",
  "ERR_DMA_PRIVATE",
]);

/** What mapping said of a buffer that the CPU and the device are to share, in the words of the buffer's owner. */
export function sharedRefused(error: unknown): unknown {
  if (!(error instanceof DmaError) || !COPIES.has(error.code)) return error;
  const refused = new DmaError(
    "ERR_DMA_BUFFER_COHERENCE",
    "EOPNOTSUPP",
    `this device cannot share a buffer with the CPU (${error.message}); take coherence: "synced"`,
  );
  refused.cause = error;
  return refused;
}
