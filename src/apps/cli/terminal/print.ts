/**
 * The door by which words leave for stdout and stderr.
 *
 * Idea: names of tasks, devices and files are whatever somebody called them, escape sequences included, and a terminal
 * obeys those. What leaves here has only visible characters and line ends; in JSON the text means the same as before.
 * Not for: the bytes of an exported file; the progress line's own sequences.
 */
import { visible } from "../../../report/text/index.ts";

/** To stdout: the answer. */
export function print(text: string): void {
  process.stdout.write(visible(text));
}

/** To stdout: the answer as data. */
export function printJson(value: object): void {
  print(`${JSON.stringify(value, null, 2)}\n`);
}

/** To stderr: what is said about it. */
export function say(text: string): void {
  process.stderr.write(visible(text));
}
