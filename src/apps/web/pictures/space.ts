/**
 * A device's address space, with the gaps folded: where each piece of it lies in a picture.
 *
 * Idea: devices use a few places far apart. Places that are close to each other make one stretch; between two stretches a fold of a fixed
 * height stands for all that is not used. So "height" is a number of bytes, in which every used byte has its own place, from the lowest address up.
 */
import type { Mappings } from "../../../report/index.ts";
import { firstFrom } from "./search.ts";
import type { Lives } from "./tracks.ts";

/** A stretch of used addresses. */
export interface Stretch {
  /** First address, and the one behind the last. */
  readonly start: number;
  readonly end: number;
  /** Height of its first byte. */
  readonly at: number;
}

/** Pieces of mappings, contiguous for the device, in the order of their mappings' beginnings. */
export interface Space {
  readonly stretches: readonly Stretch[];
  /** Height of all. */
  readonly height: number;
  /** Row of the mapping; height of its first byte; bytes. */
  readonly row: Uint32Array;
  readonly at: Float64Array;
  readonly length: Float64Array;
  /** The latest end of this and every earlier piece: what is before a time is found by halving. */
  readonly startNs: Float64Array;
}

/** A fold's share of the whole height. */
const FOLD = 1 / 40;
/** Gaps are folded from this share of what is used on. */
const FOLDED_FROM = 1 / 12;
const PAGE = 4096;

/** The space of `rows`, which are in the order of their beginnings. */
export function spaceOf(rows: Uint32Array, mappings: Mappings, lives: Lives): Space {
  let n = 0;
  for (const row of rows) mappings.eachRun(row, () => void n++);
  const [row, iova, length] = [new Uint32Array(n), new Float64Array(n), new Float64Array(n)];
  let at = 0;
  for (const mapping of rows)
    mappings.eachRun(mapping, (address, bytes) => {
      row[at] = mapping;
      iova[at] = address;
      length[at++] = Math.max(bytes, 1);
    });
  const stretches = stretchesOf(iova, length);
  const starts = stretches.map(({ start }) => start);
  for (let i = 0; i < n; i++) {
    const stretch = stretches[firstFrom(starts, iova[i]! + 1) - 1]!;
    iova[i] = stretch.at + iova[i]! - stretch.start;
  }
  const last = stretches.at(-1);
  return {
    stretches,
    height: last ? last.at + last.end - last.start : 1,
    row,
    at: iova,
    length,
    startNs: Float64Array.from(row, (mapping) => lives.startNs[mapping]!),
  };
}

/** What is used, in stretches of whole pages. */
function stretchesOf(iova: Float64Array, length: Float64Array): Stretch[] {
  const order = new Uint32Array(iova.length).map((_, i) => i).sort((a, b) => iova[a]! - iova[b]!);
  const used: { start: number; end: number }[] = [];
  for (const i of order) {
    const start = Math.floor(iova[i]! / PAGE) * PAGE;
    const end = Math.ceil((iova[i]! + length[i]!) / PAGE) * PAGE;
    const last = used.at(-1);
    if (last && start <= last.end) last.end = Math.max(last.end, end);
    else used.push({ start, end });
  }
  const bytes = used.reduce((sum, { start, end }) => sum + end - start, 0);
  const close = Math.max(bytes * FOLDED_FROM, 16 * PAGE);
  const joined: { start: number; end: number }[] = [];
  for (const { start, end } of used) {
    const last = joined.at(-1);
    if (last && start - last.end <= close) last.end = end;
    else joined.push({ start, end });
  }
  const shown = joined.reduce((sum, { start, end }) => sum + end - start, 0);
  const fold = shown * FOLD;
  let at = 0;
  return joined.map(({ start, end }) => {
    const stretch = { start, end, at };
    at += end - start + fold;
    return stretch;
  });
}

/** The address at a height; `undefined` in a fold. */
export function addressAt(stretches: readonly Stretch[], height: number): number | undefined {
  const stretch = stretches.findLast(({ at }) => at <= height);
  if (!stretch) return undefined;
  const address = stretch.start + height - stretch.at;
  return address < stretch.end ? address : undefined;
}

/** The height of an address; `undefined`: it lies in no stretch. */
export function heightOf(stretches: readonly Stretch[], address: number): number | undefined {
  const stretch = stretches.find(({ start, end }) => address >= start && address < end);
  return stretch && stretch.at + address - stretch.start;
}
