/**
 * The address space over time as pixels: time to the right, addresses upwards, each mapping a rectangle.
 *
 * Idea: mappings of one device do not lie on each other, so all their pixels are together as many as the picture has; what is smaller than a
 * pixel adds its share of it, and the more of a pixel was mapped, the stronger its colour. 10^6 mappings cost some ten milliseconds.
 */
import type { Canvas } from "./paint-timeline.ts";
import type { Space } from "./space.ts";
import type { Lives } from "./tracks.ts";

/** Which part of the space, from `low` to `high` (heights), and how many rows of pixels. */
interface SpaceWindow {
  readonly low: number;
  readonly high: number;
  readonly rows: number;
}

/** Paints `space` into `canvas`; `colourOf` gives the colour of a mapping's row, 0xBBGGRR. */
export function paintSpace(
  canvas: Canvas,
  window: SpaceWindow,
  space: Space,
  lives: Lives,
  colourOf: (row: number) => number,
): void {
  const { pixels, width, fromNs, toNs } = canvas;
  const { low, high, rows } = window;
  const cover = new Float32Array(width * rows);
  const [perNs, perByte] = [width / (toNs - fromNs), rows / (high - low)];
  for (let i = 0; i < space.row.length; i++) {
    const row = space.row[i]!;
    if (space.startNs[i]! >= toNs) break;
    const end = lives.endNs[row]!;
    const bottom = space.at[i]!;
    const top = bottom + space.length[i]!;
    if (end < fromNs || top <= low || bottom >= high) continue;
    const x0 = Math.max(0, (space.startNs[i]! - fromNs) * perNs);
    const x1 = Math.min(width, (end - fromNs) * perNs);
    const y0 = Math.max(0, (high - top) * perByte);
    const y1 = Math.min(rows, (high - bottom) * perByte);
    const colour = colourOf(row) & 0xffffff;
    const [firstX, lastX] = [Math.min(Math.floor(x0), width - 1), Math.min(Math.ceil(x1), width)];
    const [firstY, lastY] = [Math.min(Math.floor(y0), rows - 1), Math.min(Math.ceil(y1), rows)];
    const share = Math.min(1, x1 - x0 || LEAST) * Math.min(1, y1 - y0 || LEAST);
    for (let y = firstY; y < Math.max(lastY, firstY + 1); y++)
      for (let x = firstX, to = Math.max(lastX, firstX + 1), at = y * width + firstX; x < to; x++, at++) {
        cover[at]! += share;
        pixels[at] = colour;
      }
  }
  for (let at = 0; at < cover.length; at++)
    if (cover[at]! > 0)
      pixels[at] = (pixels[at]! | (Math.round(FAINTEST + (255 - FAINTEST) * Math.min(1, cover[at]!)) << 24)) >>> 0;
}

/** A mapping of no time still has a share of its pixel. */
const LEAST = 0.05;
/** Strength of a pixel of which nearly nothing was mapped: it can still be seen. */
const FAINTEST = 70;
