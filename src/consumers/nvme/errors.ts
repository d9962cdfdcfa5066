/** What the NVMe driver refuses or gives up on. One function per error. */
import { DmaError, given, hex } from "../../base/index.ts";
import { ALL_ONES, statusName } from "../../layouts/nvme/index.ts";
import type { BlockStatus } from "../block/index.ts";

/** An option that is none of what it may be. */
export const badOption = (name: string, value: unknown, needed: string): DmaError =>
  new DmaError("ERR_DMA_NVME_OPTION", "EINVAL", `${name}: ${given(value)}; give ${needed}`, { name, value });

/** The device does not answer as a controller does. */
export const noController = (name: string, why: string): DmaError =>
  new DmaError("ERR_DMA_NVME_ABSENT", "ENODEV", `${name}: ${why}`, { name });

/** The controller did not become what was asked in the time it has. */
export const notReady = (name: string, waitedMs: number, status: number): DmaError =>
  new DmaError(
    "ERR_DMA_NVME_NOT_READY",
    "ENODEV",
    status === ALL_ONES
      ? `${name} is gone: its status register reads all ones`
      : `${name} did not change state within ${waitedMs} ms; its status register is ${hex(status)}`,
    { name, waitedMs, status },
  );

/** A command that the controller answered with an error. */
export const commandFailed = (what: string, status: number): DmaError =>
  new DmaError("ERR_DMA_NVME_STATUS", "EIO", `${what} failed: ${statusName(status)}`, { what, status });

/** A request that ended without the controller having done it. */
export function requestFailed(what: string, status: BlockStatus, cause?: unknown): DmaError {
  const reason = REASONS[status] ?? status;
  const why = cause instanceof DmaError ? `${UNMAPPABLE[status] ?? reason}: ${cause.message}` : reason;
  const details = { what, status };
  const error = new DmaError("ERR_DMA_NVME_REQUEST", ERRNOS[status] ?? "EIO", `${what} failed: ${why}`, details);
  if (cause !== undefined) error.cause = cause;
  return error;
}

const ERRNOS: Readonly<Partial<Record<BlockStatus, DmaError["errno"]>>> = {
  "not-supported": "EOPNOTSUPP",
  timeout: "ETIMEDOUT",
  "no-space": "ENOSPC",
  resource: "ENOMEM",
  "device-resource": "EBUSY",
  offline: "ENODEV",
  target: "EREMOTEIO",
  invalid: "EINVAL",
};

const REASONS: Readonly<Partial<Record<BlockStatus, string>>> = {
  timeout: "the controller did not answer in time and was reset",
  resource: "no address space, bounce buffer or descriptor memory is free; try again when requests have ended",
  offline: "the controller is gone or was shut down",
  invalid: "the device cannot reach this memory",
  "io-error": "the memory could not be mapped, or it cannot be described to this controller",
};

/** The same where the mapping call says more. */
const UNMAPPABLE: typeof REASONS = {
  "io-error": "the memory could not be mapped",
  invalid: "the memory could not be mapped",
};

/** Blocks that the namespace does not have. */
export const outOfRange = (firstBlock: number, blocks: number, total: number): DmaError =>
  new DmaError(
    "ERR_DMA_NVME_RANGE",
    "ERANGE",
    `blocks ${firstBlock} to ${firstBlock + blocks - 1} of a namespace that has ${total}`,
    { firstBlock, blocks, total },
  );

/** A namespace that the controller does not have, or whose format this driver does not know. */
export const badNamespace = (id: number, why: string): DmaError =>
  new DmaError("ERR_DMA_NVME_NAMESPACE", "ENODEV", `namespace ${id}: ${why}`, { id });

/** A command that the controller says it does not know. */
export const unsupported = (what: string): DmaError =>
  new DmaError("ERR_DMA_NVME_UNSUPPORTED", "EOPNOTSUPP", `this controller does not support ${what}`, { what });

/** A shared buffer whose storage is another one by now. */
export const bufferChanged = (buffer: string): DmaError =>
  new DmaError(
    "ERR_DMA_NVME_BUFFER",
    "EAGAIN",
    `${buffer} moved, or was taken back, before the transfer began: nothing was transferred; try again`,
    { buffer },
  );

/** A shared buffer that its owner gives out as a table for the device only. */
export const noVectors = (buffer: string): DmaError =>
  new DmaError(
    "ERR_DMA_NVME_BUFFER",
    "EOPNOTSUPP",
    `${buffer} is given out as a scatter table only: a disk's requests need to know where it is`,
    { buffer },
  );

/** Use after close. */
export const closed = (name: string): DmaError =>
  new DmaError("ERR_DMA_NVME_CLOSED", "ENODEV", `${name} was closed, or is gone`, { name });
