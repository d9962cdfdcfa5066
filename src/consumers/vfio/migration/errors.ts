/** What migration refuses or gives up on. One function per error. */
import { DmaError, hex } from "../../../base/index.ts";
import type { MigrationState } from "../../../layouts/uapi/index.ts";

/** A state that cannot be reached from where the device is. */
export const noWay = (from: MigrationState, to: MigrationState | number, flags: number): DmaError =>
  new DmaError(
    "ERR_DMA_MIGRATION_STATE",
    "EINVAL",
    from === "error"
      ? "the device is in state error: only a reset leads out of it"
      : `no way from ${from} to ${to} for a device with migration flags ${flags}`,
    { from, to, flags },
  );

/** A driver gave out a stream on an arc that is not the last: its bug, not the caller's. */
export const strayStream = (from: MigrationState, to: MigrationState): DmaError =>
  new DmaError("ERR_DMA_MIGRATION_STATE", "EINVAL", `the driver opened a stream on the way from ${from} to ${to}`, {
    from,
    to,
  });

/** A stream whose session is over. */
export const sessionOver = (): DmaError =>
  new DmaError(
    "ERR_DMA_MIGRATION_OVER",
    "ENODEV",
    "this session is over: the device left the states it belongs to, failed, or was reset",
  );

/** A read of what is written to, or the other way round. */
export const wrongDirection = (call: "read" | "write"): DmaError =>
  new DmaError(
    "ERR_DMA_MIGRATION_DIRECTION",
    "EBADF",
    `this data file cannot be ${call === "read" ? "read" : "written"}`,
  );

/** A data file is a stream. */
export const notSeekable = (): DmaError =>
  new DmaError("ERR_DMA_MIGRATION_SEEK", "ESPIPE", "a data file is a stream: it has no positions");

/** Nothing to read yet: a save is under way. */
export const nothingYet = (): DmaError =>
  new DmaError("ERR_DMA_MIGRATION_WAIT", "EAGAIN", "the device is still saving: read again when the file is ready");

/** Nothing to read before the device changes or stops. */
export const nothingNow = (): DmaError =>
  new DmaError(
    "ERR_DMA_MIGRATION_PAUSE",
    "ENOMSG",
    "everything so far has been read: more comes when the device has changed or has stopped",
  );

/** Pre-copy information where there is none. */
export const noPreCopy = (state: MigrationState): DmaError =>
  new DmaError("ERR_DMA_MIGRATION_STATE", "EINVAL", `no pre-copy information in state ${state}`, { state });

/** Pre-copy information of a file that never has any. */
export const notPreCopyFile = (): DmaError =>
  new DmaError("ERR_DMA_MIGRATION_REQUEST", "ENOTTY", "this data file has no pre-copy information");

/** Flags of the second form, on a device that does not copy before it stops. */
export const noPreCopyFlags = (): DmaError =>
  new DmaError("ERR_DMA_MIGRATION_FEATURE", "EINVAL", "this device does not pre-copy: there is nothing to opt in to");

/** A call that is none of a device's, or that this device has not. */
export const notSupported = (what: string): DmaError =>
  new DmaError("ERR_DMA_MIGRATION_REQUEST", "ENOTTY", `this device does not know ${what}`);

/** A feature call that is malformed. */
export const badFeatureCall = (why: string): DmaError => new DmaError("ERR_DMA_MIGRATION_FEATURE", "EINVAL", why);

/** Memory of the caller that cannot be read or written. */
export const badUserMemory = (address: bigint | number, length: number): DmaError =>
  new DmaError(
    "ERR_DMA_USER_FAULT",
    "EFAULT",
    `${length} bytes at ${hex(address)} of the caller's memory cannot be reached`,
    { address, length },
  );

/** Ranges to log, or to report, that are none. */
export const badLogRange = (errno: "EINVAL" | "EOVERFLOW" | "E2BIG", why: string, details: object = {}): DmaError =>
  new DmaError("ERR_DMA_LOG_RANGE", errno, why, details);
