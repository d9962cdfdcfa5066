/** What can be refused here: one function per error, which makes a catalogue. "Not supported" is an answer, not an error. */
import { DmaError, hex } from "../base/index.ts";

export const badBar = (phys: number, length: number): DmaError =>
  new DmaError(
    "ERR_DMA_P2P_BAR",
    "EINVAL",
    `peer memory of ${hex(length)} bytes at ${hex(phys)}: give whole pages that end below 2^52`,
    { phys, length },
  );

export const overlappingBar = (phys: number, length: number, other: { phys: number; length: number }): DmaError =>
  new DmaError(
    "ERR_DMA_P2P_OVERLAP",
    "EEXIST",
    `peer memory of ${hex(length)} bytes at ${hex(phys)} overlaps the ${hex(other.length)} bytes at ${hex(other.phys)} that are registered: remove those first`,
    { phys, length, other },
  );
