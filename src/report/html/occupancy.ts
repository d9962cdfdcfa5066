/**
 * A device's address space over time, as a picture's numbers: how much of it was mapped, where and when.
 *
 * Idea: time in columns, address in rows. Rows are equal pieces of the address space, as many as fit, and only those that
 * were ever used: a device that uses two places far apart gets both, and a break between them. A cell is the share of its
 * piece that was mapped, on average over its time. Cost: one addition for each row and end of a mapping.
 */
import { PAGE_SIZE } from "../../base/index.ts";
import type { Mappings } from "../recording.ts";

/** The picture's numbers. */
export interface Occupancy {
  /** Pieces of time, of equal length. */
  readonly columns: number;
  /** Pieces of the address space. */
  readonly rows: number;
  /** Bytes of address space of a row. */
  readonly rowBytes: number;
  /** First address of each row, highest first, as it is drawn. */
  readonly addresses: readonly number[];
  /** 0 to 1, row by row from the top. */
  readonly share: Float64Array;
  /** The most bytes that were mapped at once, in each column. */
  readonly peakBytes: Float64Array;
}

/** How large a picture, and of which time. */
export interface OccupancyOptions {
  /** Columns of the picture: the time is cut into so many equal spans. */
  readonly columns: number;
  /** Rows at the most: a row is the smallest power of two bytes that keeps to this. */
  readonly mostRows: number;
  /** Where the picture begins, nanoseconds since the trace's time base. */
  readonly firstNs: number;
  /** Where it ends, in the same. */
  readonly lastNs: number;
}

/** The picture of the mappings `chosen`. */
export function occupancyOf(mappings: Mappings, chosen: Uint32Array, options: OccupancyOptions): Occupancy {
  const { columns, mostRows, firstNs } = options;
  const span = Math.max(options.lastNs - firstNs, 1);
  const rowBytes = rowSize(mappings, chosen, mostRows);
  const used = [...piecesOf(mappings, chosen, rowBytes)].sort((a, b) => b - a);
  const rowOf = new Map(used.map((piece, i) => [piece, i]));
  const share = new Float64Array(used.length * columns);
  // What every later column gets as well, until it is taken back: so that a long life costs two additions a row.
  const steps = new Float64Array(used.length * (columns + 1));
  const at = (ns: number): number => (Math.min(Math.max(ns - firstNs, 0), span) / span) * columns;
  for (const row of chosen) {
    const [start, end] = lifeOf(mappings, row, options);
    const [from, to] = [at(start), Math.max(at(end), at(start))];
    const first = Math.min(Math.floor(from), columns - 1);
    const last = Math.min(Math.floor(to), columns - 1);
    mappings.eachRun(row, (iova, length) => {
      const stop = iova + Math.max(length, 1);
      for (let piece = Math.floor(iova / rowBytes); piece * rowBytes < stop; piece++) {
        const line = rowOf.get(piece)!;
        const part = (Math.min(stop, (piece + 1) * rowBytes) - Math.max(iova, piece * rowBytes)) / rowBytes;
        if (first === last) {
          share[line * columns + first]! += part * (to - from);
          continue;
        }
        share[line * columns + first]! += part * (first + 1 - from);
        share[line * columns + last]! += part * (to - last);
        steps[line * (columns + 1) + first + 1]! += part;
        steps[line * (columns + 1) + last]! -= part;
      }
    });
  }
  for (let line = 0; line < used.length; line++) {
    let level = 0;
    for (let column = 0; column < columns; column++) {
      level += steps[line * (columns + 1) + column]!;
      const cell = line * columns + column;
      share[cell] = Math.min(1, Math.max(0, share[cell]! + level));
    }
  }
  return {
    columns,
    rows: used.length,
    rowBytes,
    addresses: used.map((piece) => piece * rowBytes),
    share,
    peakBytes: peaks(mappings, chosen, options, at),
  };
}

/** From when to when a mapping is drawn; one that was there before, or stayed, reaches the edge. */
function lifeOf(mappings: Mappings, row: number, { firstNs, lastNs }: OccupancyOptions): [number, number] {
  const start = mappings.startNs[row]!;
  const end = mappings.endNs[row]!;
  return [start < 0 ? firstNs : start, end < 0 ? lastNs : end];
}

/** The smallest power of two of which no more than `mostRows` pieces were used. */
function rowSize(mappings: Mappings, chosen: Uint32Array, mostRows: number): number {
  let size = PAGE_SIZE;
  for (; ; size *= 2) {
    const pieces = piecesOf(mappings, chosen, size, mostRows);
    if (pieces.size <= mostRows) return size;
  }
}

/** Pieces that were used; gives up where there are more than `enough`. */
function piecesOf(
  mappings: Mappings,
  chosen: Uint32Array,
  size: number,
  enough: number = Number.POSITIVE_INFINITY,
): Set<number> {
  const pieces = new Set<number>();
  for (const row of chosen) {
    mappings.eachRun(row, (iova, length) => {
      const stop = iova + Math.max(length, 1);
      for (let piece = Math.floor(iova / size); piece * size < stop && pieces.size <= enough; piece++)
        pieces.add(piece);
    });
    if (pieces.size > enough) return pieces;
  }
  return pieces;
}

function peaks(
  mappings: Mappings,
  chosen: Uint32Array,
  options: OccupancyOptions,
  at: (ns: number) => number,
): Float64Array {
  const { columns } = options;
  // In the order of the recording, which no two beginnings and ends share: nothing needs to be sorted.
  let places = 0;
  for (const row of chosen) places = Math.max(places, mappings.started[row]! + 1, mappings.ended[row]! + 1);
  const changes = new Int32Array(places);
  for (const row of chosen) {
    changes[mappings.started[row]!] = row + 1;
    if (mappings.ended[row]! >= 0) changes[mappings.ended[row]!] = -(row + 1);
  }
  const peak = new Float64Array(columns);
  let mapped = 0;
  let drawn = 0;
  for (const change of changes) {
    if (change === 0) continue;
    const row = Math.abs(change) - 1;
    const [start, end] = lifeOf(mappings, row, options);
    const column = Math.min(Math.floor(at(change > 0 ? start : Math.max(start, end))), columns - 1);
    for (; drawn <= column; drawn++) peak[drawn] = mapped;
    mapped += change > 0 ? mappings.length[row]! : -mappings.length[row]!;
    peak[column] = Math.max(peak[column]!, mapped);
  }
  for (; drawn < columns; drawn++) peak[drawn] = mapped;
  return peak;
}
