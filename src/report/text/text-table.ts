/**
 * Text that lines up: tables, and paragraphs of a given width.
 *
 * Idea: widths are counted in UTF-16 units, since what is shown is ASCII, file names and a few signs. Not for: HTML.
 */

/** `rows` under `header`, two spaces between columns: the first column to the left, the others to the right. */
export function textTable(header: readonly string[], rows: readonly (readonly string[])[]): string {
  return aligned([header, ...rows], (cell, width, column) =>
    column === 0 ? cell.padEnd(width) : cell.padStart(width),
  ).join("\n");
}

/** `lines` of words, every column to the left. */
export const leftTable = (lines: readonly (readonly string[])[]): string[] =>
  aligned(lines, (cell, width) => cell.padEnd(width));

/** As many columns as the first line has; a cell that is missing is empty. */
function aligned(
  lines: readonly (readonly string[])[],
  pad: (cell: string, width: number, column: number) => string,
): string[] {
  const widths = (lines[0] ?? []).map((_, column) => Math.max(...lines.map((line) => (line[column] ?? "").length)));
  return lines.map((line) =>
    widths
      .map((width, column) => pad(line[column] ?? "", width, column))
      .join("  ")
      .trimEnd(),
  );
}

/** `text` in lines of at most `width` characters, broken between words; a longer word has a line of its own. */
export function wrapLines(text: string, width: number): string[] {
  const lines = [""];
  for (const word of text.split(" ")) {
    const line = lines.at(-1)!;
    if (line === "") lines[lines.length - 1] = word;
    else if (line.length + 1 + word.length <= width) lines[lines.length - 1] = `${line} ${word}`;
    else lines.push(word);
  }
  return lines;
}

/** {@link wrapLines} as one text. */
export const wrap = (text: string, width: number): string => wrapLines(text, width).join("\n");

/** `text` in lines of at most `width`, the first one behind `first`, the others behind `others`, which is as long or longer. */
export const paragraph = (text: string, width: number, first: string = "", others: string = first): string[] =>
  wrapLines(text, width - others.length).map((line, i) => `${i === 0 ? first : others}${line}`);

/** `text` beside `label`, its lines under each other; `indent` is the label's column. */
export const labelled = (label: string, text: string, width: number, indent: number): string[] =>
  paragraph(text, width, label.padEnd(indent), " ".repeat(indent));
