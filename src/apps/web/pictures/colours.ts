/**
 * The colours of data, for both themes: the same in a picture and in its legend.
 *
 * Chosen to be told apart by people who do not tell red from green; what is grave is also drawn on top, and said in the table beside.
 */
import type { Theme } from "../frame/theme.ts";
import type { Palette } from "./paint-timeline.ts";

/** Colours as #rrggbb, in the order of KINDS and of MARKS. */
export interface Colours {
  readonly kinds: readonly string[];
  readonly marks: readonly string[];
  readonly curve: string;
  readonly curveLine: string;
  /** From little to much. */
  readonly scale: readonly string[];
  readonly live: string;
}

export const COLOURS: Readonly<Record<Theme, Colours>> = {
  light: {
    //       one-shot   scatterlist coherent   two-step   unattributed
    kinds: ["#3b7dd8", "#7a5cc7", "#b58500", "#14866d", "#8a939d"],
    //       other      unmap      map        link       sync       bounce     flush      fault
    marks: ["#aab2bb", "#8fb1e6", "#3b7dd8", "#14866d", "#b58500", "#c05a9d", "#7a5cc7", "#d0222c"],
    curve: "#d6e3f8",
    curveLine: "#3b7dd8",
    scale: ["#cfe0f7", "#9cc0ee", "#639be0", "#3273c6", "#1a4e97", "#0d2f63"],
    live: "#d0222c",
  },
  dark: {
    kinds: ["#5c9bf0", "#a58af0", "#d9a93a", "#3fbf9f", "#79838e"],
    marks: ["#59626d", "#4d74ad", "#5c9bf0", "#3fbf9f", "#d9a93a", "#e084be", "#a58af0", "#ff6b6b"],
    curve: "#20344f",
    curveLine: "#5c9bf0",
    scale: ["#1e3a63", "#27548f", "#3672bd", "#5591dd", "#8ab6f0", "#c6dcfa"],
    live: "#ff6b6b",
  },
};

/** "#rrggbb" as a canvas has it in memory, without its strength. */
export function pixelOf(colour: string): number {
  const value = Number.parseInt(colour.slice(1), 16);
  return ((value & 0xff) << 16) | (value & 0xff00) | (value >> 16);
}

const opaque = (colour: string): number => (pixelOf(colour) | 0xff000000) >>> 0;

/** The colours of the timeline's pixels. */
export const paletteOf = ({ kinds, marks, curve, curveLine }: Colours): Palette => ({
  kinds: kinds.map(opaque),
  marks: marks.map(opaque),
  curve: opaque(curve),
  curveLine: opaque(curveLine),
});
