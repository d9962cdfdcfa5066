/**
 * Which track each mapping of a device is drawn on: the first that is free when it begins.
 *
 * Idea: one pass over the mappings in the order in which they begin, and their ends in theirs. Cost: a look at the lanes a mapping.
 */
import type { Mappings } from "../recording.ts";

/** Tracks of mappings per device; what overlaps more is counted, not drawn. */
const MOST_LANES = 1000;

/** The mappings of one device, laid out. */
export interface LaneEvents {
  /** In the order in which they begin. */
  readonly rows: Uint32Array;
  /** Of each: its track, from 0; -1: none was free. */
  readonly lane: Int16Array;
  readonly lanes: number;
  /** Mappings without a track. */
  readonly leftOut: number;
  /** Indices into `rows` of those that end, in the order in which they do. */
  readonly ends: Uint32Array;
}

/** A slice of no length is an instant, and the next one on the lane must not begin inside it: it is a nanosecond long. */
export const stopOf = (endNs: number, startNs: number): number =>
  endNs < 0 ? Number.POSITIVE_INFINITY : Math.max(endNs, startNs + 1);

/** Lays out `rows`, which are in the order of their beginning; `startOf` says when that is. */
export function laneEvents(mappings: Mappings, rows: Uint32Array, startOf: (row: number) => number): LaneEvents {
  const freeAt: number[] = [];
  const lane = new Int16Array(rows.length);
  const stops = new Float64Array(rows.length);
  let leftOut = 0;
  for (const [at, row] of rows.entries()) {
    const start = startOf(row);
    stops[at] = stopOf(mappings.endNs[row]!, start);
    let free = freeAt.findIndex((end) => end <= start);
    if (free < 0 && freeAt.length < MOST_LANES) free = freeAt.length;
    lane[at] = free;
    if (free < 0) leftOut++;
    else freeAt[free] = stops[at]!;
  }
  const ends = Uint32Array.from(rows.keys()).filter((at) => stops[at]! < Number.POSITIVE_INFINITY);
  ends.sort((a, b) => stops[a]! - stops[b]! || a - b);
  return { rows, lane, lanes: freeAt.length, leftOut, ends };
}
