/**
 * Measurements: digests of what a device runs and how it is set up, one block for each.
 *
 * Promises: `decodeMeasurements(encodeMeasurements(x))` gives back `x`; bytes that are no record give undefined.
 * Specified by: DMTF DSP0274 1.2, 10.11.1 (measurement block), table 45 (DMTF measurement value).
 */
import { joined, read16, word16 } from "./messages.ts";

/** What a block measures. */
const MEASURED = {
  immutableRom: 0,
  mutableFirmware: 1,
  hardwareConfiguration: 2,
  firmwareConfiguration: 3,
  manifest: 4,
} as const;

/** What a block measures, by name. */
type Measured = keyof typeof MEASURED;

/** One measurement. */
export interface Measurement {
  /** 1 to 254, each once. */
  readonly index: number;
  readonly measured: Measured;
  /** A digest; the bytes themselves if `raw`. */
  readonly value: Uint8Array;
  readonly raw?: boolean;
}

const DMTF = 1;
const RAW = 0x80;
const NAMES = Object.keys(MEASURED) as Measured[];

/** A record of measurements as it is sent. */
export const encodeMeasurements = (blocks: readonly Measurement[]): Uint8Array =>
  joined(
    ...blocks.flatMap(({ index, measured, value, raw }) => [
      [index, DMTF, ...word16(value.length + 3), MEASURED[measured] | (raw ? RAW : 0), ...word16(value.length)],
      value,
    ]),
  );

/** The blocks of a record; undefined if it is none, whole and nothing more. */
export function decodeMeasurements(record: Uint8Array): Measurement[] | undefined {
  const blocks: Measurement[] = [];
  for (let at = 0; at < record.length; ) {
    const size = read16(record, at + 2);
    const length = read16(record, at + 5);
    const measured = NAMES.find((name) => MEASURED[name] === (record[at + 4]! & ~RAW));
    const fits = record[at + 1] === DMTF && size === length + 3 && at + 4 + size <= record.length;
    if (!fits || measured === undefined) return undefined;
    const raw = (record[at + 4]! & RAW) !== 0;
    blocks.push({ index: record[at]!, measured, value: record.slice(at + 7, at + 7 + length), ...(raw && { raw }) });
    at += 4 + size;
  }
  return blocks;
}
