/** What can be wrong when an invalidation is written. */
import { DmaError, hex } from "../../base/index.ts";

/** A value does not fit its field. */
export const fieldOverflow = (structure: string, field: string, value: number, bits: number): DmaError =>
  new DmaError(
    "ERR_DMA_INVALIDATION_FIELD",
    "EINVAL",
    `${field} of the ${structure} is ${value}, but it has ${bits} bits: a whole number from 0 to 2^${bits} - 1 is needed`,
    { structure, field, value, bits },
  );

/** A range is empty, or is not of pages of a 64-bit address space. */
export const badRange = (start: number, end: number): DmaError =>
  new DmaError(
    "ERR_DMA_INVALIDATION_RANGE",
    "EINVAL",
    `pages ${hex(start)} to ${hex(end)} (not included) cannot be invalidated: 0 <= start < end <= 2^52 is needed`,
    { start, end },
  );

/** A block does not start at a multiple of its size. */
export const misalignedBlock = (start: number, order: number): DmaError =>
  new DmaError(
    "ERR_DMA_INVALIDATION_ALIGNMENT",
    "EINVAL",
    `page ${hex(start)} does not start a block of 2^${order} pages: a multiple of the block's size is needed`,
    { start, order },
  );
