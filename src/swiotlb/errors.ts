/** What can be refused here: one function per error, which makes a catalogue. A pool without room is not among them. */
import { DmaError, given, hex } from "../base/index.ts";

export const badSlots = (slots: number, areas: number): DmaError =>
  new DmaError(
    "ERR_DMA_BOUNCE_SLOTS",
    "EINVAL",
    `a pool of ${given(slots)} slots in ${given(areas)} areas: areas must be a power of two, and each a whole number of sets of 128 slots`,
    { slots, areas },
  );

export const tooManySlots = (slots: number, most: number): DmaError =>
  new DmaError(
    "ERR_DMA_BOUNCE_SLOTS",
    "EINVAL",
    `a pool of ${slots} slots: ${most} (128 GiB) are the most that one has`,
    {
      slots,
      most,
    },
  );

export const badPoolStart = (start: number): DmaError =>
  new DmaError(
    "ERR_DMA_BOUNCE_START",
    "EINVAL",
    `a pool that starts at ${Number.isSafeInteger(start) ? hex(start) : given(start)}: it must start at a page, a whole multiple of 4096`,
    { start },
  );

export const badLength = (length: number): DmaError =>
  new DmaError(
    "ERR_DMA_BOUNCE_LENGTH",
    "EINVAL",
    `cannot bounce ${given(length)} bytes: give a whole number from 1 on`,
    {
      length,
    },
  );

export const badIndex = (index: number, slots: number): DmaError =>
  new DmaError(
    "ERR_DMA_BOUNCE_INDEX",
    "EINVAL",
    `a search cannot begin at slot ${index}: the area has slots 0 to ${slots - 1}`,
    { index, slots },
  );
