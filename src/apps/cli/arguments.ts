/**
 * The command line's words, kept as they were typed.
 *
 * Idea: the parser makes a number of whatever looks like one ("007", "0x10", and "" too), takes "-1" for an option and
 * loses "-". So every word that is not an option's name goes through it behind a mark that no word of a command line can
 * contain. Not for: the words behind "--" of a command that runs them; they are never parsed.
 */
import { STANDARD_INPUT } from "./files/input.ts";

/** No argument of a process can contain it. */
const MARK = "\0";

/**
 * `argv` for the parser, values marked. The first of `commands` is left as it is, so that the parser finds it; "--" and
 * what is behind it is left if that command is in `runs`, else those are values like the others.
 */
export function marked(argv: readonly string[], commands: readonly string[], runs: readonly string[]): string[] {
  const [node, program, ...words] = argv as [string, string, ...string[]];
  let command: string | undefined;
  let onlyValues = false;
  const result = [node, program];
  for (const [i, word] of words.entries()) {
    if (onlyValues) result.push(MARK + word);
    else if (word === "--") {
      if (command !== undefined && runs.includes(command)) return [...result, ...words.slice(i)];
      onlyValues = true;
    } else if (command === undefined && commands.includes(word)) {
      command = word;
      result.push(word);
    } else if (/^--?[a-z]/i.test(word)) result.push(option(word));
    else result.push(MARK + word);
  }
  return result;
}

/** An option as the parser knows it: in camel case, else it takes the word behind `--best-effort` for its value. */
function option(word: string): string {
  const [, name, value] = /^([^=]+)(?:=([\s\S]*))?$/.exec(word)!;
  const known = name!.replace(/(?<=[a-z])-([a-z])/g, (_, letter: string) => letter.toUpperCase());
  if (value === undefined) return known;
  return `${known}=${/^(true|false)$/.test(value) ? "" : MARK}${value}`; // of a switch; to others it is the same
}

/** A value as it was typed; "-" is {@link STANDARD_INPUT}. What the parser did not get from the command line stays. */
export function plain<T>(value: T): T | string {
  if (typeof value !== "string" || !value.startsWith(MARK)) return value;
  return value === `${MARK}-` ? STANDARD_INPUT : value.slice(MARK.length);
}

/** A message of the parser, without the marks. */
export const unmarked = (message: string): string => message.replaceAll(MARK, "");
