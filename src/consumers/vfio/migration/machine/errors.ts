/** What moving a machine refuses or gives up on. One function per error. */
import { DmaError } from "../../../../base/index.ts";

/** Bytes that are no frame, or a damaged one. */
export const badFrame = (why: string, offset: number): DmaError =>
  new DmaError("ERR_DMA_MOVE_FRAME", "EBADMSG", `the stream is damaged after ${offset} bytes: ${why}`, { offset });

/** The other side has gone. */
export const linkEnded = (where: string): DmaError =>
  new DmaError("ERR_DMA_MOVE_LINK", "ENOTCONN", `the other side has gone ${where}`, { where });

/** The other side said no. */
export const otherRefused = (why: string): DmaError =>
  new DmaError("ERR_DMA_MOVE_REFUSED", "ECANCELED", `the other side gave up: ${why}`, { why });

/** A frame that is right by itself and wrong here. */
export const outOfPlace = (what: string): DmaError =>
  new DmaError("ERR_DMA_MOVE_PROTOCOL", "EBADMSG", `${what}: that does not belong here`, { what });

/** Two machines that are not alike. */
export const notAlike = (what: string, source: unknown, target: unknown): DmaError =>
  new DmaError(
    "ERR_DMA_MOVE_DIFFERS",
    "EINVAL",
    `the machines differ in ${what}: ${JSON.stringify(source)} moves, ${JSON.stringify(target)} is here`,
    { what, source, target },
  );

/** All has come, and it is not what was sent. */
export const memoryDiffers = (expected: number, found: number): DmaError =>
  new DmaError("ERR_DMA_MOVE_MEMORY", "EBADMSG", "memory here is not what it was there when it stopped", {
    expected,
    found,
  });

/** A device had nothing to give for too long. */
export const deviceSilent = (name: string): DmaError =>
  new DmaError("ERR_DMA_MOVE_SILENT", "ETIMEDOUT", `${name} gave none of its state for too long`, { name });
