/** What memory of a process refuses: one function per error, which makes a catalogue. What ends in a signal is never one. */
import { DmaError, type Errno, given, hex, PAGE_SIZE } from "../../../base/index.ts";

export const badRange = (start: unknown, length: unknown): DmaError =>
  new DmaError(
    "ERR_DMA_USER_RANGE",
    "EINVAL",
    `${given(length)} bytes at ${given(start)} are no range of an address space: give whole pages, at least one, below 2^47`,
    { start, length },
  );

export const rangeTooHigh = (start: number, length: number): DmaError =>
  new DmaError("ERR_DMA_USER_RANGE", "EOVERFLOW", `${hex(length)} bytes at ${hex(start)} reach past the last address`, {
    start,
    length,
  });

export const badSplit = (page: number): DmaError =>
  new DmaError(
    "ERR_DMA_USER_RANGE",
    "EINVAL",
    `an area of hugetlb pages cannot be cut at ${hex(page * PAGE_SIZE)}: give multiples of 2 MiB`,
    { address: page * PAGE_SIZE },
  );

export const areaTaken = (start: number, end: number): DmaError =>
  new DmaError(
    "ERR_DMA_USER_TAKEN",
    "EEXIST",
    `something is mapped in [${hex(start * PAGE_SIZE)}, ${hex(end * PAGE_SIZE)}) already: unmap it, or ask to replace it`,
    { start: start * PAGE_SIZE, end: end * PAGE_SIZE },
  );

export const noArea = (page: number): DmaError =>
  new DmaError("ERR_DMA_USER_HOLE", "ENOMEM", `nothing is mapped at ${hex(page * PAGE_SIZE)}`, {
    address: page * PAGE_SIZE,
  });

export const userFault = (page: number, why: string): DmaError =>
  new DmaError("ERR_DMA_USER_FAULT", "EFAULT", `the process cannot reach ${hex(page * PAGE_SIZE)} so: ${why}`, {
    address: page * PAGE_SIZE,
    why,
  });

export const userGone = (): DmaError =>
  new DmaError("ERR_DMA_USER_GONE", "EFAULT", "the process has ended: nothing of its memory is left");

export const userMemory = (pages: number): DmaError =>
  new DmaError("ERR_DMA_USER_MEMORY", "ENOMEM", `no memory for ${pages} pages of a process`, { pages });

/** A system call that the process may not make so, with the number that Linux answers. */
export const refused = (call: string, errno: Errno, why: string): DmaError =>
  new DmaError("ERR_DMA_USER_CALL", errno, `${call}: ${why}`, { call });

export const badFileRange = (offset: number, length: number, end: number): DmaError =>
  new DmaError(
    "ERR_DMA_USER_FILE",
    "EINVAL",
    `${length} bytes from ${offset} on are not all in the file, which has ${end}, or not whole pages of it`,
    { offset, length, end },
  );
