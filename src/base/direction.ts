/** Which way the bytes of a mapping go. */

/** Who moves the data: the device reads (`to-device`), writes (`from-device`), or both. */
export type Direction = "bidirectional" | "to-device" | "from-device";

/** True if the device may write: what it wrote has to reach the CPU when the mapping ends. */
export const deviceWrites = (direction: Direction): boolean => direction !== "to-device";

/** True if the device may read: what the CPU wrote has to reach the device. */
export const deviceReads = (direction: Direction): boolean => direction !== "from-device";
