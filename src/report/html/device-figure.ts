/**
 * The picture of one device: its address space over time, under the bytes that were mapped.
 *
 * Idea: SVG, with the cells as one small PNG stretched under it; ink by the page's own colours, so that it is right in the
 * dark too. Every scale has its unit.
 */
import { bytes, duration, hex, plural } from "../../base/index.ts";
import type { Recording } from "../recording.ts";
import { escaped } from "../text/escape.ts";
import { occupancyOf } from "./occupancy.ts";
import { type Deflate, strengthPng } from "./png.ts";

const WIDTH = 1000;
const LEFT = 120;
const RIGHT = 16;
const CURVE_TOP = 18;
const CURVE_HEIGHT = 70;
const MAP_TOP = CURVE_TOP + CURVE_HEIGHT + 22;
const MAP_HEIGHT = 240;
const BOTTOM = 34;
const COLUMNS = 480;
const MOST_ROWS = 120;
const COLOUR = [42, 111, 219] as const;
/** Least distance of two labels, in units of the picture. */
const LABEL_STEP = 16;
const TIME_TICKS = 5;

/** A figure in HTML: what `rows` of the recording's mappings took up; `deflate` packs its cells. */
export function deviceFigure(name: string, recording: Recording, rows: Uint32Array, deflate?: Deflate): string {
  const { mappings, result, firstNs, lastNs } = recording;
  const picture = occupancyOf(mappings, rows, { columns: COLUMNS, mostRows: MOST_ROWS, firstNs, lastNs });
  const span = Math.max(lastNs - firstNs, 1);
  const plot = WIDTH - LEFT - RIGHT;
  const height = MAP_TOP + MAP_HEIGHT + BOTTOM;
  const peak = picture.peakBytes.reduce((most, value) => Math.max(most, value), 0);
  const x = (ns: number): number => round(LEFT + ((ns - firstNs) / span) * plot);
  const parts = [
    curve(picture.peakBytes, peak, plot),
    cells(picture.columns, picture.rows, picture.share, plot, deflate),
    addresses(picture.addresses, picture.rowBytes, plot),
    ...Array.from({ length: TIME_TICKS + 1 }, (_, i) => {
      const ns = firstNs + (span * i) / TIME_TICKS;
      const anchor = i === 0 ? "start" : i === TIME_TICKS ? "end" : "middle";
      return `<text x="${x(ns)}" y="${height - 16}" text-anchor="${anchor}">${duration(ns - firstNs)}</text>`;
    }),
    ...result.findings
      .filter((finding) => finding.device === name && finding.severity === "error" && finding.timeNs >= firstNs)
      .slice(0, 200)
      .map(({ timeNs, rule }) => {
        const at = x(timeNs);
        const bottom = MAP_TOP - 2;
        return `<path class="finding" d="M${at} ${bottom}l-4 -7h8z"><title>${escaped(rule)}</title></path>`;
      }),
  ];
  const caption = `${name}: ${plural(rows.length, "mapping")}, at most ${bytes(peak)} at once, in ${plural(picture.rows, "piece")} of ${bytes(picture.rowBytes)} of its address space`;
  return `<figure>
<svg viewBox="0 0 ${WIDTH} ${height}" role="img" aria-label="${escaped(caption)}">
${parts.join("\n")}
</svg>
<figcaption>${escaped(caption)}</figcaption>
</figure>`;
}

/** Bytes mapped, as a line over its own scale. */
function curve(values: Float64Array, peak: number, plot: number): string {
  const y = (value: number): number => round(CURVE_TOP + CURVE_HEIGHT * (1 - value / Math.max(peak, 1)));
  const points = Array.from(values, (value, i) => `${round(LEFT + ((i + 0.5) / values.length) * plot)} ${y(value)}`);
  const bottom = CURVE_TOP + CURVE_HEIGHT;
  const right = LEFT + plot;
  return `<line class="grid" x1="${LEFT}" x2="${right}" y1="${bottom}" y2="${bottom}"/><line class="grid" x1="${LEFT}" x2="${right}" y1="${CURVE_TOP}" y2="${CURVE_TOP}"/>
<text x="${LEFT - 8}" y="${CURVE_TOP + 4}" text-anchor="end">${bytes(peak)}</text><text x="${LEFT - 8}" y="${bottom + 4}" text-anchor="end">0</text>
<text x="${LEFT}" y="${CURVE_TOP - 6}">bytes mapped</text>
<path class="area" d="M${LEFT} ${bottom}L${points.join("L")}L${right} ${bottom}z"/><path class="curve" d="M${points.join("L")}"/>`;
}

function cells(columns: number, rows: number, share: Float64Array, plot: number, deflate?: Deflate): string {
  // A cell that was used at all is seen, however little of it.
  const values = Uint8Array.from(share, (value) => (value === 0 ? 0 : Math.round(40 + 215 * Math.sqrt(value))));
  const png = base64(strengthPng(columns, Math.max(rows, 1), values, COLOUR, deflate));
  return `<image x="${LEFT}" y="${MAP_TOP}" width="${plot}" height="${MAP_HEIGHT}" preserveAspectRatio="none" style="image-rendering:pixelated" href="data:image/png;base64,${png}"/>
<rect x="${LEFT}" y="${MAP_TOP}" width="${plot}" height="${MAP_HEIGHT}" fill="none" class="grid"/>`;
}

/** Addresses at the left, and a line where they jump. */
function addresses(first: readonly number[], rowBytes: number, plot: number): string {
  const step = MAP_HEIGHT / Math.max(first.length, 1);
  const parts: string[] = [];
  let labelled = Number.NEGATIVE_INFINITY;
  const label = (y: number, address: number): void => {
    if (y - labelled < LABEL_STEP) return;
    labelled = y;
    parts.push(`<text class="mono" x="${LEFT - 8}" y="${round(y + 4)}" text-anchor="end">${hex(address)}</text>`);
  };
  for (const [i, address] of first.entries()) {
    const y = MAP_TOP + i * step;
    const jump = i > 0 && first[i - 1]! - rowBytes !== address;
    if (jump) parts.push(`<line class="jump" x1="${LEFT}" x2="${LEFT + plot}" y1="${round(y)}" y2="${round(y)}"/>`);
    // The row's own last byte is at its top edge.
    if (i === 0 || jump) label(y + Math.min(step, 8) / 2, address);
  }
  if (first.length > 1) label(MAP_TOP + MAP_HEIGHT - 2, first.at(-1)!);
  return parts.join("\n");
}

/** Bytes as a `data:` address has them. */
const base64 = (bytes: Uint8Array): string => btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));

const round = (value: number): number => Math.round(value * 10) / 10;
