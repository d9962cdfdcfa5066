/** Words of findings: which way data go, and what a kind of mapping is called. Numbers are said as everywhere (base/wording.ts). */
export { count, duration as time, exactBytes as size, hex as address, plural, share } from "../../base/index.ts";

const DIRECTIONS = ["both ways", "to the device", "from the device", "nowhere (NONE)"];
/** Which way data go, by the kernel's number of the direction. */
export const way = (direction: number): string => DIRECTIONS[direction] ?? `direction ${direction}`;

const NOUNS = ["mapping", "scatterlist", "coherent memory", "two-step range", "pages"];
/** What a kind of mapping is called in a sentence, by its number in `KINDS`. */
export const noun = (kind: number): string => NOUNS[kind] ?? "mapping";
