/** Which way the bytes of a mapping go: every list and every name of a direction follows from this one. */

/** All directions, in the order of the kernel's numbers for them, from 0 (`enum dma_data_direction`). */
export const DIRECTIONS = ["bidirectional", "to-device", "from-device"] as const;

/** Who moves the data: the device reads (`to-device`), writes (`from-device`), or both. */
export type Direction = (typeof DIRECTIONS)[number];

/** The kernel's number of a direction, as its events and dumps carry it; -1 for what is none. */
export const directionNumber = (direction: Direction): number => DIRECTIONS.indexOf(direction);

/** As the kernel's events print a direction: `TO_DEVICE`; its source has `DMA_` before that. */
export const kernelDirection = (direction: Direction): string => direction.toUpperCase().replace("-", "_");

/** True if the device may write: what it wrote has to reach the CPU when the mapping ends. */
export const deviceWrites = (direction: Direction): boolean => direction !== "to-device";

/** True if the device may read: what the CPU wrote has to reach the device. */
export const deviceReads = (direction: Direction): boolean => direction !== "from-device";
