/** Text as it may stand in HTML and SVG, inside and outside of attributes. */
export const escaped = (text: string): string =>
  text.replace(/[&<>"']/g, (character) => `&#${character.codePointAt(0)};`);

/** Characters that a terminal obeys, or that turn the direction of the others. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const OBEYED = /[\0-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;

/** Text as it may go to a terminal: what is obeyed there is spelled as in JSON, but for line ends. */
export const visible = (text: string): string =>
  text.replace(OBEYED, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`);

/** The same for text within a line. */
export const visibleInLine = (text: string): string => visible(text).replaceAll("\n", "\\u000a");
