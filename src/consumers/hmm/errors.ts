/** What a mirror of a process's memory refuses: one function per error, which makes a catalogue. */
import { DmaError, hex } from "../../base/index.ts";

/** A range that the process does not have. */
export const rangeOutOfReach = (address: number, why: string): DmaError =>
  new DmaError("ERR_DMA_HMM_FAULT", "EFAULT", `what is asked of ${hex(address)} is not there: ${why}`, {
    address,
    why,
  });

/** A write was asked for, and the memory may only be read. */
export const rangeReadOnly = (address: number): DmaError =>
  new DmaError(
    "ERR_DMA_HMM_READ_ONLY",
    "EPERM",
    `writing is asked of ${hex(address)}, but the process may only read it`,
    {
      address,
    },
  );

export const deviceNeedsSyncs = (device: string, isLimited: boolean): DmaError =>
  new DmaError(
    "ERR_DMA_HMM_UNSUPPORTED",
    "EOPNOTSUPP",
    `${device} cannot follow pages of a process: ${
      isLimited
        ? "it does not reach all memory, so pages would be copied for it"
        : "its mappings may need syncs (no mask was set, it bounces, or it is not coherent)"
    }`,
    { device, isLimited },
  );

export const badWord = (index: number, flags: number): DmaError =>
  new DmaError(
    "ERR_DMA_HMM_WORD",
    "EINVAL",
    `word ${index} (${hex(flags)}) is not valid: there is no page to map; bring it by a range fault first`,
    { index, flags },
  );

export const peerOutOfReach = (device: string, phys: number): DmaError =>
  new DmaError("ERR_DMA_HMM_PEER", "EREMOTEIO", `${device} has no way to the peer memory at ${hex(phys)}`, {
    device,
    phys,
  });

export const mirrorClosed = (): DmaError =>
  new DmaError("ERR_DMA_RELEASED", "EINVAL", "the mirror is closed: it follows no range any more");

export const rangeBusy = (rounds: number): DmaError =>
  new DmaError("ERR_DMA_HMM_BUSY", "EBUSY", `the range changed in each of ${rounds} rounds: come again later`, {
    rounds,
  });

export const missedInvalidation = (index: number, mapped: number, found: number): Error =>
  new Error(
    `broken invariant: page ${index} of a mirror is mapped to ${hex(mapped)}, but the process has ${hex(found)}: it was not told of the change`,
  );
