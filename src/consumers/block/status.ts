/**
 * Block status: how a request ended, and what errors of the mapping layer become.
 *
 * Only `resource` and `device-resource` mean "later"; every other failure is final.
 * Specified by: behaviour of Linux 7.2 block layer.
 */
import { DmaError, type Errno } from "../../base/index.ts";

/** Each status with its number in Linux. */
export const BLOCK_STATUS = {
  /** Done. */
  ok: 0,
  /** The device, or the way to the memory, cannot do this. */
  "not-supported": 1,
  /** The device did not answer in time. */
  timeout: 2,
  /** The medium is full. */
  "no-space": 3,
  /** The way to the device failed. */
  transport: 4,
  /** The device failed, in a way that trying again does not mend. */
  target: 5,
  /** The bytes cannot be read from, or written to, the medium. */
  medium: 7,
  /** Data and metadata do not belong together. */
  protection: 8,
  /** No memory or address space at present: the request is tried again later. */
  resource: 9,
  /** Any other failure. */
  "io-error": 10,
  /** The device or its queue has no room at present: the request is tried again later. */
  "device-resource": 13,
  /** The device has gone. */
  offline: 16,
  /** What was asked makes no sense to the device. */
  invalid: 19,
} as const;

/** How a request ended, in the block layer's words. */
export type BlockStatus = keyof typeof BLOCK_STATUS;

const BY_ERRNO: { readonly [E in Errno]?: BlockStatus } = {
  ENOMEM: "resource",
  EOPNOTSUPP: "not-supported",
  EINVAL: "invalid",
  EBUSY: "device-resource",
  ENODEV: "offline",
  EREMOTEIO: "target",
  ETIMEDOUT: "timeout",
  ENOSPC: "no-space",
};

/** EPERM, ENXIO, ERANGE, EADDRINUSE and all without a row of their own are an I/O error. */
export const statusOfErrno = (errno: Errno): BlockStatus => BY_ERRNO[errno] ?? "io-error";

/** The status of a failed mapping call. Anything but a {@link DmaError} is a defect of this library and is thrown on. */
export function statusOfError(error: unknown): BlockStatus {
  if (error instanceof DmaError) return statusOfErrno(error.errno);
  throw error;
}

/** May the same request succeed later? */
export const isRetryable = (status: BlockStatus): boolean => status === "resource" || status === "device-resource";
