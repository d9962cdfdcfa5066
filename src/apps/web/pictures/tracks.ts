/**
 * The tracks of the timeline: for each device its requests as slices and its live bytes as a curve, for each CPU its events as marks.
 *
 * Idea: slices of one device lie in lanes, so that none lies on another, as in Perfetto; the lanes are dealt out once, in the order of the
 * beginnings. Within a lane nothing overlaps, so what is visible is found by halving. Promises: what found no lane (more than
 * {@link MOST_LANES} at once) is counted, and told with the track.
 */
import type { Mappings } from "../../../report/index.ts";
import { firstFrom } from "./search.ts";

/** Lanes of one device at the most; a screen shows no more. */
const MOST_LANES = 24;

/** Mappings of one device, in lanes. */
export interface Lanes {
  /** Rows of the mappings, and where they begin and end, lane by lane, in the order of their beginnings. */
  readonly lanes: readonly { readonly rows: Uint32Array; readonly start: Float64Array; readonly end: Float64Array }[];
  /** Mappings that found no lane. */
  readonly without: number;
}

/** Bytes of one device that are mapped, as steps. */
export interface Steps {
  readonly timeNs: Float64Array;
  /** From that time on. */
  readonly bytes: Float64Array;
  readonly peak: number;
}

/** From when to when a mapping is drawn; one that was there before, or stays, reaches the edge. */
export interface Lives {
  readonly startNs: Float64Array;
  readonly endNs: Float64Array;
}

/** The lives of all mappings, by row. */
export function livesOf(mappings: Mappings, firstNs: number, lastNs: number): Lives {
  const n = mappings.count;
  const [startNs, endNs] = [new Float64Array(n), new Float64Array(n)];
  for (let row = 0; row < n; row++) {
    const [start, end] = [mappings.startNs[row]!, mappings.endNs[row]!];
    startNs[row] = start < 0 ? firstNs : start;
    endNs[row] = Math.max(startNs[row]!, end < 0 ? lastNs : end);
  }
  return { startNs, endNs };
}

/** `rows` in the order of their beginnings. */
export const byStart = (rows: Uint32Array, { startNs }: Lives): Uint32Array =>
  rows.slice().sort((a, b) => startNs[a]! - startNs[b]! || a - b);

/** Deals `rows`, which are in the order of their beginnings, out to lanes. */
export function lanesOf(rows: Uint32Array, lives: Lives): Lanes {
  const lanes: number[][] = [];
  const until: number[] = [];
  let without = 0;
  for (const row of rows) {
    const start = lives.startNs[row]!;
    let lane = until.findIndex((end) => end <= start);
    if (lane < 0) {
      if (lanes.length === MOST_LANES) {
        without++;
        continue;
      }
      lane = lanes.push([]) - 1;
    }
    lanes[lane]!.push(row);
    // Of no length, it still has its place: the next begins behind it.
    until[lane] = Math.max(lives.endNs[row]!, start + 1);
  }
  return {
    without,
    lanes: lanes.map((list) => {
      const kept = Uint32Array.from(list);
      return {
        rows: kept,
        start: Float64Array.from(kept, (row) => lives.startNs[row]!),
        end: Float64Array.from(kept, (row) => lives.endNs[row]!),
      };
    }),
  };
}

/** Live bytes of `rows` over time. */
export function stepsOf(rows: Uint32Array, mappings: Mappings, lives: Lives): Steps {
  const n = rows.length;
  const starts = rows; // in the order of beginnings already
  const ends = rows.slice().sort((a, b) => lives.endNs[a]! - lives.endNs[b]!);
  const [timeNs, bytes] = [new Float64Array(2 * n), new Float64Array(2 * n)];
  let [level, peak, s, e] = [0, 0, 0, 0];
  for (let at = 0; at < 2 * n; at++) {
    const begins = s < n && lives.startNs[starts[s]!]! <= lives.endNs[ends[e]!]!;
    const row = begins ? starts[s++]! : ends[e++]!;
    const stays = !begins && mappings.endNs[row]! < 0;
    if (begins) level += mappings.length[row]!;
    else if (!stays) level -= mappings.length[row]!;
    timeNs[at] = begins ? lives.startNs[row]! : lives.endNs[row]!;
    bytes[at] = level;
    if (level > peak) peak = level;
  }
  return { timeNs, bytes, peak };
}

/** The most bytes at once in each of `width` columns of [fromNs, toNs). */
export function levels(steps: Steps, fromNs: number, toNs: number, width: number): Float64Array {
  const top = new Float64Array(width);
  const { timeNs, bytes } = steps;
  let at = firstFrom(timeNs, fromNs);
  let level = at > 0 ? bytes[at - 1]! : 0;
  for (let column = 0; column < width; column++) {
    const until = fromNs + ((toNs - fromNs) * (column + 1)) / width;
    top[column] = level;
    for (; at < timeNs.length && timeNs[at]! < until; at++) {
      level = bytes[at]!;
      if (level > top[column]!) top[column] = level;
    }
  }
  return top;
}
