/**
 * The words of a command line, and what they ask for.
 *
 * Idea: Node's own parser splits words into options and arguments, and never guesses; what each may be is the command's
 * table. Promises: a word means what was typed ("007" stays so); what is not understood is refused by name, with what is
 * nearest to it. Specified by: the utility syntax of POSIX, with long options as GNU has them.
 */
import { parseArgs } from "node:util";
import { type Argument, type Call, type Command, flagOf } from "./command.ts";
import { UsageError } from "./exit-errors.ts";
import { STANDARD_INPUT } from "./files/standard-input.ts";
import { didYouMean } from "./terminal/did-you-mean.ts";

/** The first of `words` that names one of `commands`, and the other words. */
export function commandIn(
  words: readonly string[],
  commands: readonly Command[],
): { readonly command: Command | undefined; readonly rest: readonly string[] } {
  const end = words.indexOf("--");
  const at = words.findIndex((word, i) => (end < 0 || i < end) && commands.some(({ name }) => name === word));
  if (at < 0) return { command: undefined, rest: words };
  const command = commands.find(({ name }) => name === words[at])!;
  return { command, rest: words.filter((_, i) => i !== at) };
}

/** What `words` ask of `command`; `undefined`: its help. */
export function parseCall(words: readonly string[], command: Command): Omit<Call, "program"> | undefined {
  const { options } = command;
  const keys = new Map(Object.keys(options).map((key) => [flagOf(key).slice(2), key]));
  const { tokens } = parseArgs({
    args: [...words],
    strict: false,
    tokens: true,
    allowPositionals: true,
    options: {
      help: { type: "boolean", short: "h" },
      ...Object.fromEntries(
        [...keys].map(([name, key]) => {
          const { value, short } = options[key]!;
          return [name, { type: value === undefined ? "boolean" : "string", ...(short && { short }) }] as const;
        }),
      ),
    },
  });
  const given = new Map<string, string[]>();
  const found: string[] = [];
  const behind: string[] = [];
  let ended = false;
  for (const token of tokens) {
    if (token.kind === "option-terminator") ended = true;
    else if (token.kind === "positional") {
      if (ended && command.runs) behind.push(token.value);
      else found.push(plain(token.value));
    } else {
      if (token.name === "help") return undefined;
      const key = keys.get(token.name);
      if (key === undefined) throw unknownOption(token.rawName, command);
      given.set(key, [...(given.get(key) ?? []), givenValue(token, options[key]!.value)]);
    }
  }
  const values = Object.entries(options).map(([key, { read, repeated, value }]) => {
    const words = given.get(key) ?? [];
    if (words.length > 1 && !repeated && value !== undefined)
      throw new UsageError(
        `${flagOf(key)} is given ${words.length} times, with ${words.join(" and ")}: once is enough`,
      );
    return [key, read(words, flagOf(key))];
  });
  checkArguments(found, command);
  return { arguments: found, options: Object.fromEntries(values), behind };
}

/** "-" is {@link STANDARD_INPUT}; other words are what they are. */
const plain = (word: string): string => (word === "-" ? STANDARD_INPUT : word);

interface OptionToken {
  readonly rawName: string;
  readonly value: string | undefined;
  readonly inlineValue: boolean | undefined;
}

/** What was given for an option: "true" for a switch. `value` is what the option's value is called, if it has one. */
function givenValue({ rawName, value: word, inlineValue }: OptionToken, value: string | undefined): string {
  if (value === undefined) {
    if (word === undefined || word === "true" || word === "false") return word ?? "true";
    throw new UsageError(`${rawName} is a switch and takes no value`);
  }
  if (word === undefined || (!inlineValue && /^--?[a-z]/i.test(word)))
    throw new UsageError(
      `${rawName} needs a value: ${rawName} ${value}${word === undefined ? "" : `, or ${rawName}=${word} if that is it`}`,
    );
  return plain(word);
}

function unknownOption(name: string, command: Command): UsageError {
  const flags = [...Object.keys(command.options).map(flagOf), "--help"];
  return new UsageError(`${command.name} has no option ${name}${didYouMean(name, flags)}`);
}

function checkArguments(found: readonly string[], { name, arguments: wanted, runs }: Command): void {
  const missing = wanted.filter(({ optional }) => !optional)[found.length];
  if (missing) throw new UsageError(`${name} needs ${article(missing)}`);
  const tooMany = wanted.at(-1)?.many ? undefined : found[wanted.length];
  if (tooMany === undefined) return;
  const takes = wanted.length === 0 ? "no argument" : wanted.map(({ name }) => name).join(" and ");
  throw new UsageError(
    `${name} takes ${takes}, and ${tooMany} is one word too many${runs ? `; a command goes behind --: dmalink ${name} -- ${tooMany}` : ""}`,
  );
}

const article = ({ name }: Argument): string => `${/^[AEIOU]/.test(name) ? "an" : "a"} ${name}`;
