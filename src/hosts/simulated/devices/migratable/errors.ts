/** What migratable devices refuse. One function per error. */
import { DmaError } from "../../../../base/index.ts";

/** A session's end cuts its stream off. */
export const streamOver = (): DmaError =>
  new DmaError("ERR_DMA_SIM_STREAM", "ENODEV", "the session that this stream belonged to is over");

/** More bytes than an image of this device has. */
export const imageTooLong = (most: number, given: number): DmaError =>
  new DmaError("ERR_DMA_SIM_IMAGE", "ENOMEM", `an image of this device has ${most} bytes, not ${given}`, {
    most,
    given,
  });

/** An image that ended too early. */
export const imageTooShort = (needed: number, given: number): DmaError =>
  new DmaError("ERR_DMA_SIM_IMAGE", "EINVAL", `${given} of the ${needed} bytes of an image came`, { needed, given });

/** An image of another device, or a damaged one. `errno` is the device's habit. */
export const wrongImage = (errno: "EFAULT" | "EINVAL", why: string): DmaError =>
  new DmaError("ERR_DMA_SIM_IMAGE", errno, `this is no image of this device: ${why}`);

/** A log that cannot be read any more. */
export const logBroken = (): DmaError =>
  new DmaError("ERR_DMA_SIM_LOG", "EIO", "the device lost its log of writes: any page may have been written");
