/** Numbers in sentences: with their units, for people. */

/** 4096 as "4 KiB", 1522 as "1,522 bytes"; exact below 1 MiB. */
export function size(bytes: number): string {
  const units = ["KiB", "MiB", "GiB", "TiB"];
  if (bytes < 1024 || (bytes % 1024 !== 0 && bytes < 1024 * 1024))
    return `${count(bytes)} byte${bytes === 1 ? "" : "s"}`;
  let scaled = bytes / 1024;
  let unit = 0;
  while (scaled >= 1024 && unit < units.length - 1) {
    scaled /= 1024;
    unit++;
  }
  return `${Number.isInteger(scaled) ? scaled : scaled.toFixed(1)} ${units[unit]}`;
}

/** 1234567 as "1,234,567". */
export const count = (value: number): string => value.toLocaleString("en-US");

/** "1 page", "2 pages". */
export const plural = (value: number, word: string): string => `${count(value)} ${word}${value === 1 ? "" : "s"}`;

/** Nanoseconds as "12.3 µs". */
export function time(ns: number): string {
  if (ns < 1_000) return `${Math.round(ns)} ns`;
  if (ns < 1_000_000) return `${(ns / 1_000).toPrecision(3)} µs`;
  if (ns < 1_000_000_000) return `${(ns / 1_000_000).toPrecision(3)} ms`;
  return `${(ns / 1_000_000_000).toFixed(2)} s`;
}

/** 0.123 as "12 %". */
export const share = (part: number): string =>
  part < 0.001 ? "less than 0.1 %" : `${part < 0.1 ? (part * 100).toFixed(1) : Math.round(part * 100)} %`;

export const address = (bytes: number): string => `0x${bytes.toString(16)}`;

const DIRECTIONS = ["both ways", "to the device", "from the device", "nowhere (NONE)"];
export const way = (direction: number): string => DIRECTIONS[direction] ?? `direction ${direction}`;

const NOUNS = ["mapping", "scatterlist", "coherent memory", "two-step range", "pages"];
/** What a kind of mapping is called in a sentence. */
export const noun = (kind: number): string => NOUNS[kind] ?? "mapping";
