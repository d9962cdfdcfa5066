/** Help as text: of the program, and of one command. Made of the commands' own values; lines of at most 80 columns. */
import { labelled, wrap } from "../../../report/text/index.ts";
import { type Argument, type Command, flagOf, type Option, type Program } from "../command.ts";
import { EXIT_CODES } from "../exit-errors.ts";

const WIDTH = 80;
/** The widest left column that has something beside it; what is wider has its meaning below. */
const LEFT = 26;

/** Of the program: what commands there are. */
export function programHelp({ version, commands }: Program): string {
  const width = Math.max(...commands.map(({ name }) => name.length)) + 4;
  return sections([
    ["", [`dmalink ${version}: DMA mappings, recorded, checked, compared, simulated`]],
    ["", ["Usage: dmalink COMMAND [ARGUMENTS] [OPTIONS]"]],
    ["Commands", commands.flatMap(({ name, summary }) => labelled(`  ${name}`, summary, WIDTH, width))],
    [
      "Options",
      rows([
        ["-h, --help", "this, or of a command what it does"],
        ["-v, --version", "the version, the machine, and Node's version"],
      ]),
    ],
    [
      "Examples",
      [
        "  dmalink check trace.dat.gz",
        "  dmalink compare trace.dat.gz --mode lazy",
        "  dmalink help check",
        "  source <(dmalink completion bash)    words are completed by the shell",
      ],
    ],
    ["Exit codes", labelled("  ", EXIT_CODES, WIDTH, 2)],
  ]);
}

/** Of one command: what it does, and how it is asked. */
export function commandHelp(command: Command): string {
  const { name, summary, description, arguments: words, options, examples } = command;
  return sections([
    ["", [wrap(`dmalink ${name}: ${summary}`, WIDTH)]],
    ["", [`Usage: ${usageOf(command)}`]],
    ["", [wrap(description, WIDTH)]],
    ["Arguments", rows(words.map((argument) => [argumentOf(argument), argument.meaning]))],
    [
      "Options",
      rows([
        ...Object.entries(options).map(([key, option]) => [optionOf(key, option), meaningOf(option)] as const),
        ["-h, --help", "this"],
      ]),
    ],
    ["Examples", examples.map((example) => `  ${example}`)],
    ["Exit codes", labelled("  ", EXIT_CODES, WIDTH, 2)],
  ]);
}

/** How `command` is typed: "dmalink check TRACE… [OPTIONS]". */
export const usageOf = ({ name, arguments: words, runs }: Command): string =>
  ["dmalink", name, ...words.map(argumentOf), "[OPTIONS]", ...(runs ? ["[-- COMMAND]"] : [])].join(" ");

/** How an argument is shown: "TRACE", "TRACE...", "[SQL]". */
export const argumentOf = ({ name, optional, many }: Argument): string => {
  const word = many ? `${name}...` : name;
  return optional ? `[${word}]` : word;
};

/** How an option is shown: "-o, --output FILE". */
export const optionOf = (key: string, { short, value }: Option<unknown>): string =>
  `${short === undefined ? "" : `-${short}, `}${flagOf(key)}${value === undefined ? "" : ` ${value}`}`;

/** What an option means, and what it is if it is not given. */
export const meaningOf = ({ meaning, byDefault }: Option<unknown>): string =>
  byDefault === undefined ? meaning : `${meaning} (default: ${byDefault})`;

function rows(pairs: readonly (readonly [string, string])[]): string[] {
  const width = Math.min(LEFT, Math.max(0, ...pairs.map(([left]) => left.length)) + 4);
  return pairs.flatMap(([left, meaning]) =>
    left.length + 4 > width
      ? [`  ${left}`, ...labelled("", meaning, WIDTH, width)]
      : labelled(`  ${left}`, meaning, WIDTH, width),
  );
}

/** Titles with what stands below them, indented; a section with nothing in it is left out. */
const sections = (all: readonly (readonly [title: string, lines: readonly string[]])[]): string =>
  all
    .filter(([, lines]) => lines.length > 0)
    .map(([title, lines]) => `${[...(title === "" ? [] : [title]), ...lines].join("\n")}\n`)
    .join("\n");
