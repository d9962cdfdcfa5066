/** What the trusted side of a simulated machine refuses: one function per error. What devices and hosts do is never one. */
import { DmaError, type Errno, hex } from "../../../base/index.ts";

/** A device that is not who it says, or does not prove it. */
export const badIdentity = (device: string, why: string): DmaError =>
  new DmaError("ERR_DMA_SIM_TEE_IDENTITY", "EACCES", `${device} does not prove who it is: ${why}`, { device, why });

/** A device that does not answer as it must. */
export const sessionRefused = (device: string, answer: string): DmaError =>
  new DmaError("ERR_DMA_SIM_TEE_SESSION", "EIO", `the session with ${device} failed: it answered ${answer}`, {
    device,
    answer,
  });

/** A session that is over. */
export const noSession = (device: string): DmaError =>
  new DmaError("ERR_DMA_SIM_TEE_SESSION", "EIO", `there is no session with ${device} any more: connect it again`, {
    device,
  });

/** A mailbox that does not answer. */
export const mailboxSilent = (device: string, waitedMs: number): DmaError =>
  new DmaError("ERR_DMA_SIM_TEE_MAILBOX", "ETIMEDOUT", `the mailbox of ${device} did not answer in ${waitedMs} ms`, {
    device,
    waitedMs,
  });

/** A mailbox of a device that is gone. */
export const mailboxGone = (device: string): DmaError =>
  new DmaError("ERR_DMA_SIM_TEE_MAILBOX", "ENODEV", `${device} is gone, and its mailbox with it`, { device });

/** Keys that a port did not take. */
export const keysRefused = (port: string, why: string): DmaError =>
  new DmaError("ERR_DMA_SIM_TEE_KEYS", "EIO", `${port} did not take the keys of its stream: ${why}`, { port, why });

/** A function that cannot be given to a guest. */
export const notAssignable = (fn: string, why: string): DmaError =>
  new DmaError("ERR_DMA_SIM_TEE_ASSIGN", "EINVAL", `${fn} cannot be given to a guest: ${why}`, { function: fn, why });

/** A device that refuses a TDISP request. */
export const interfaceRefused = (fn: string, asked: string, error: string): DmaError =>
  new DmaError("ERR_DMA_SIM_TDISP", ERRNO_OF[error] ?? "EIO", `${fn} refuses ${asked}: ${error}`, {
    function: fn,
    asked,
    error,
  });

const ERRNO_OF: Readonly<Record<string, Errno>> = {
  busy: "EBUSY",
  invalidInterfaceState: "EBUSY",
  invalidNonce: "EACCES",
  invalidDeviceConfiguration: "EINVAL",
  invalidRequest: "EINVAL",
  insufficientEntropy: "EAGAIN",
  unsupportedRequest: "EOPNOTSUPP",
};

/** A report that is none. */
export const badReport = (fn: string): DmaError =>
  new DmaError("ERR_DMA_SIM_TDISP", "EIO", `what ${fn} says of itself is no answer to what it was asked`, {
    function: fn,
  });

/** Device memory that the device did not report. */
export const memoryNotReported = (fn: string, phys: number, length: number): DmaError =>
  new DmaError(
    "ERR_DMA_SIM_TEE_MEMORY",
    "EACCES",
    `${length} bytes at ${hex(phys)} are not memory that ${fn} reported as part of its trusted interface, or are somebody's`,
    { function: fn, phys, length, rule: 11 },
  );

/** A step that needs a locked interface. */
export const notLocked = (fn: string): DmaError =>
  new DmaError("ERR_DMA_SIM_TEE_ORDER", "EBUSY", `${fn} is not locked: lock it first`, { function: fn });

/** Two devices without a stream between them. */
export const peerRefused = (fn: string, peer: string): DmaError =>
  new DmaError("ERR_DMA_SIM_TEE_PEER", "EINVAL", `${fn} has no stream to ${peer}: make one first`, {
    function: fn,
    peer,
    rule: 12,
  });
