/**
 * The door by which words leave for stdout and stderr.
 *
 * Idea: names of tasks, devices and files are whatever somebody called them, escape sequences included, and a terminal
 * obeys those. What leaves here has only visible characters and line ends; in JSON the text means the same as before. Where
 * colours are shown, their few signs pass as well: a name that holds one of them can change a colour, and nothing else.
 * Not for: the bytes of an exported file; the progress line's own sequences.
 */
import { type Style, visible } from "../../../report/text/index.ts";
import { isColoured, PAINT, styleOf } from "./screen.ts";

/** To stdout: the answer. */
export function print(text: string): void {
  process.stdout.write(isColoured(process.stdout) ? painted(text) : visible(text));
}

/** To stdout: the answer as data. */
export function printJson(value: object): void {
  process.stdout.write(visible(`${JSON.stringify(value, null, 2)}\n`));
}

/** To stdout: the answer in a form of which a file gets every sign as it is (CSV); a terminal gets the visible ones. */
export function writeText(text: string): void {
  process.stdout.write(process.stdout.isTTY ? visible(text) : text);
}

/** To stderr: what is said about it. */
export function say(text: string): void {
  process.stderr.write(isColoured(process.stderr) ? painted(text) : visible(text));
}

/** What ended the program, to stderr. */
export function sayError(message: string): void {
  say(`${styleOf(process.stderr).paint("error", "dmalink:")} ${message}\n`);
}

/** The style of the answer. */
export const answerStyle = (): Style => styleOf(process.stdout);

/** Colours pass, everything else is made visible. */
const painted = (text: string): string =>
  text
    .split(PAINT)
    .map((part, i) => (i % 2 === 1 ? part : visible(part)))
    .join("");
