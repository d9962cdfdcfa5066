/**
 * The timeline as pixels: for a stretch of time and a width, every track that is on the screen.
 *
 * Idea: a picture has as many pixels as the screen, however many events there are; each event costs one look and the pixels
 * that it has. So it is drawn in a worker, a picture at a time, and the page moves the last one until the next is there.
 */
import type { Mappings } from "../../../report/index.ts";
import type { Marks } from "./marks.ts";
import { firstFrom } from "./search.ts";
import { type Lanes, levels, type Steps } from "./tracks.ts";

/** Colours as a canvas has them in memory: 0xAABBGGRR. */
export interface Palette {
  /** By kind of mapping. */
  readonly kinds: readonly number[];
  /** By class of mark. */
  readonly marks: readonly number[];
  readonly curve: number;
  readonly curveLine: number;
}

/** Where a track lies in the picture. */
export interface Band {
  /** Pixels from the top. */
  readonly top: number;
  readonly height: number;
}

/** The picture that is painted. */
export interface Canvas {
  readonly pixels: Uint32Array;
  readonly width: number;
  readonly fromNs: number;
  readonly toNs: number;
}

/** The column of a time; may lie outside. */
const columnOf = ({ fromNs, toNs, width }: Canvas, ns: number): number => ((ns - fromNs) / (toNs - fromNs)) * width;

/** Slices of a device. What is narrower than a pixel is drawn as one. */
export function paintLanes(canvas: Canvas, band: Band, { lanes }: Lanes, mappings: Mappings, { kinds }: Palette): void {
  const { pixels, width, fromNs, toNs } = canvas;
  const pitch = Math.max(1, Math.floor(band.height / Math.max(lanes.length, 1)));
  for (const [i, { rows, start, end }] of lanes.entries()) {
    const top = band.top + i * pitch;
    if ((i + 1) * pitch > band.height) break;
    const high = pitch > 3 ? pitch - 1 : pitch;
    let at = Math.max(0, firstFrom(start, fromNs) - 1);
    if (end[at]! < fromNs) at++;
    let drawn = -1;
    for (; at < rows.length && start[at]! < toNs; at++) {
      const from = Math.max(0, Math.floor(columnOf(canvas, start[at]!)));
      const to = Math.min(width, Math.max(from + 1, Math.ceil(columnOf(canvas, end[at]!))));
      if (to <= drawn) continue; // its pixels are taken
      const colour = kinds[mappings.kind[rows[at]!]!]!;
      // A line of ground between neighbours tells them apart where there is room.
      const gap = to - from > 4 ? 1 : 0;
      for (let y = top; y < top + high; y++)
        pixels.fill(colour, y * width + Math.max(from, drawn), y * width + to - gap);
      drawn = to;
    }
  }
}

/** Live bytes of a device, as an area. */
export function paintCurve(canvas: Canvas, band: Band, steps: Steps, palette: Palette): void {
  const { pixels, width, fromNs, toNs } = canvas;
  const tops = levels(steps, fromNs, toNs, width);
  const bottom = band.top + band.height;
  let before = bottom - 1;
  for (let column = 0; column < width; column++) {
    const top = bottom - 1 - Math.round((tops[column]! / Math.max(steps.peak, 1)) * (band.height - 2));
    // The line goes on from where it was, however far that is.
    const [from, to] = [Math.min(top, before), Math.max(top + 1, before)];
    before = top;
    if (from >= bottom - 1 && tops[column] === 0) continue;
    for (let y = from; y < bottom; y++)
      if (y <= to) pixels[y * width + column] = palette.curveLine;
      else if (y > top) pixels[y * width + column] = palette.curve;
  }
}

/** Events of a CPU: one column a mark, the gravest on top; higher the more there are. */
export function paintMarks(canvas: Canvas, band: Band, marks: Marks, cpu: number, palette: Palette): void {
  const { pixels, width, fromNs, toNs } = canvas;
  const top = new Uint8Array(width);
  const count = new Uint32Array(width);
  for (let row = marks.from(fromNs); row < marks.count && marks.timeNs[row]! < toNs; row++) {
    if (marks.cpu[row] !== cpu) continue;
    const column = Math.floor(columnOf(canvas, marks.timeNs[row]!));
    const kind = marks.kind[row]! + 1;
    if (kind > top[column]!) top[column] = kind;
    count[column]!++;
  }
  for (let column = 0; column < width; column++) {
    if (count[column] === 0) continue;
    const share = Math.min(1, 0.45 + Math.log2(count[column]!) / 14);
    const high = Math.max(3, Math.round(share * (band.height - 1)));
    for (let y = band.top + band.height - high; y < band.top + band.height; y++)
      pixels[y * width + column] = palette.marks[top[column]! - 1]!;
  }
}
