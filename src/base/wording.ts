/**
 * Numbers as people read them, with their units: one way for findings, reports and the command line.
 *
 * Idea: a number that is said twice is said alike; what a word costs is a line here, not a table in each report. English
 * only. Not for: JSON and files for programs, where numbers are plain and the unit stands in the name.
 */

/** 1234567 as "1,234,567". */
export const count = (value: number): string => value.toLocaleString("en-US");

/** "1 request", "2 requests". */
export const plural = (value: number, word: string): string => `${count(value)} ${word}${value === 1 ? "" : "s"}`;

/** Units of size above the byte, each 1024 times the one before. */
const UNITS: readonly string[] = ["KiB", "MiB", "GiB", "TiB", "PiB"];

/** `value` in the largest unit that leaves at least one: its unit's place in {@link UNITS}, -1 for bytes. */
function scale(value: number, units: number): { readonly scaled: number; readonly unit: number } {
  let scaled = value;
  let unit = -1;
  while (scaled >= 1024 && unit < units - 1) {
    scaled /= 1024;
    unit++;
  }
  return { scaled, unit };
}

/** Bytes in the largest unit that leaves at least one, rounded: "640 B", "4 KiB", "1.49 KiB", "1.5 MiB". For tables and sums. */
export function bytes(value: number): string {
  const { scaled, unit } = scale(value, UNITS.length);
  return `${Number.isInteger(scaled) ? scaled : scaled.toFixed(scaled < 10 ? 2 : 1)} ${UNITS[unit] ?? "B"}`;
}

/** Bytes to the byte below 1 MiB: "4 KiB", "1,522 bytes"; above it as {@link bytes}, one digit. For what one mapping is. */
export function exactBytes(value: number): string {
  if (value < 1024 || (value % 1024 !== 0 && value < 1024 * 1024))
    return `${count(value)} byte${value === 1 ? "" : "s"}`;
  const { scaled, unit } = scale(value, 4);
  return `${Number.isInteger(scaled) ? scaled : scaled.toFixed(1)} ${UNITS[unit]}`;
}

/** Nanoseconds in the unit that fits: "850 ns", "12.3 µs", "4.56 ms", "1.20 s". */
export function duration(ns: number): string {
  if (ns < 1_000) return `${Math.round(ns)} ns`;
  if (ns < 1_000_000) return `${(ns / 1_000).toPrecision(3)} µs`;
  if (ns < 1_000_000_000) return `${(ns / 1_000_000).toPrecision(3)} ms`;
  return `${(ns / 1_000_000_000).toFixed(2)} s`;
}

/** A part of a whole, 0 to 1: 0.123 as "12 %". */
export const share = (part: number): string =>
  part < 0.001 ? "less than 0.1 %" : `${part < 0.1 ? (part * 100).toFixed(1) : Math.round(part * 100)} %`;
