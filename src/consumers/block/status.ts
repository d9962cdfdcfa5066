/**
 * Block status: how a request ended, and what errors of the mapping layer become.
 *
 * Only `resource` and `device-resource` mean "later"; every other failure is final.
 * Specified by: behaviour of Linux 7.2 block layer.
 */
import { DmaError, type Errno } from "../../base/index.ts";

/** Each status with its number in Linux. */
export const BLOCK_STATUS = {
  ok: 0,
  "not-supported": 1,
  timeout: 2,
  "no-space": 3,
  transport: 4,
  target: 5,
  medium: 7,
  protection: 8,
  resource: 9,
  "io-error": 10,
  "device-resource": 13,
  offline: 16,
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
