/** What a mirror of a process's memory refuses: one function per error, which makes a catalogue. */
import { DmaError, hex } from "../../base/index.ts";

export const rangeOutOfReach = (address: number, why: string): DmaError =>
  new DmaError("ERR_DMA_HMM_FAULT", "EFAULT", `what is asked of ${hex(address)} is not there: ${why}`, {
    address,
    why,
  });

export const rangeReadOnly = (address: number): DmaError =>
  new DmaError(
    "ERR_DMA_HMM_READ_ONLY",
    "EPERM",
    `writing is asked of ${hex(address)}, but the process may only read it`,
    {
      address,
    },
  );
