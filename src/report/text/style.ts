/**
 * How text is shown: how wide its lines may be, and what stands out.
 *
 * Idea: a report says what a piece of text *is* (an error, a heading), never which colour that has; who shows it decides, and
 * what shows no colours gives the text back. Promises: with {@link PLAIN}, the text is the same on every machine. A piece is
 * painted when its line is laid out, so that nothing counts the signs of a colour as columns.
 */

/** What a piece of text is. */
export type Emphasis = "error" | "warning" | "advice" | "good" | "strong" | "faint";

/** How text is shown. */
export interface Style {
  /** Columns that a line may have; tables of numbers may be wider. */
  readonly width: number;
  /** `text` as it is shown; the same text where nothing is coloured. */
  paint(emphasis: Emphasis, text: string): string;
}

/** For files, pipes and tests: 80 columns, no colours. */
export const PLAIN: Style = { width: 80, paint: (_, text) => text };
