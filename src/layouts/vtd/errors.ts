/** What can be wrong when a VT-d structure is built. */
import { DmaError } from "../../base/index.ts";

/** A value does not fit its field. */
export const fieldOverflow = (structure: string, field: string, value: number, width: number): DmaError =>
  new DmaError(
    "ERR_DMA_VTD_FIELD",
    "EINVAL",
    `${structure}.${field} is ${value}, but it has ${width} bits: a whole number from 0 to 2^${width} - 1 is needed`,
    { structure, field, value, width },
  );

/** A structure was given with a wrong number of words. */
export const wordCount = (structure: string, expected: number, found: number): DmaError =>
  new DmaError("ERR_DMA_VTD_WORDS", "EINVAL", `a ${structure} has ${expected} 64-bit words, ${found} were given`, {
    structure,
    expected,
    found,
  });
