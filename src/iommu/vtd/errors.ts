/** What a VT-d unit refuses. All of it when devices are attached; invalidating and detaching cannot fail. */
import { DmaError, hex } from "../../base/index.ts";

/** The unit lacks what is needed. `needed` reads as "... is needed". */
export const unitLacks = (needed: string, why: string): DmaError =>
  new DmaError("ERR_DMA_VTD_CAPABILITY", "EOPNOTSUPP", `${why}: a unit with ${needed} is needed`, { needed });

/** Tables that this unit, in its mode, cannot walk. */
export const badTables = (name: string, levels: number, mode: string, why: string): DmaError =>
  new DmaError(
    "ERR_DMA_VTD_TABLES",
    "EINVAL",
    `tables of format ${name} with ${levels} levels cannot be attached to a unit in ${mode} mode: ${why}`,
    { name, levels, mode },
  );

/** No memory for the unit's own structures. */
export const noMemory = (what: string): DmaError =>
  new DmaError("ERR_DMA_VTD_MEMORY", "ENOMEM", `no table memory is left for ${what}: give the arena more frames`, {
    what,
  });

/** A number beyond what the unit has. */
export const outOfRange = (what: string, value: number, first: number, limit: number): DmaError =>
  new DmaError(
    "ERR_DMA_VTD_RANGE",
    "EINVAL",
    `${what} ${value} cannot be used: a whole number from ${first} to ${limit - 1} is needed`,
    { what, value, first, limit },
  );

/** The unit does not answer. */
export const unitBroken = (why: string): DmaError =>
  new DmaError("ERR_DMA_VTD_BROKEN", "EIO", `the unit does not work any more (${why}): nothing can be attached to it`, {
    why,
  });

/** The smallest unit of a device's translations is not a page. */
export const badTranslationUnit = (requester: number, stu: number): DmaError =>
  new DmaError(
    "ERR_DMA_VTD_ATS",
    "EINVAL",
    `device ${hex(requester)} has a smallest translation unit of 2^${stu} pages: 2^0 is needed, as its tables map single pages`,
    { requester, stu },
  );
