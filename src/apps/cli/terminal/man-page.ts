/**
 * The program's manual page, made of the commands' own values: `dmalink help --man > dmalink.1`, or `| man -l -`.
 *
 * Promises: what a user typed into a table is text, never an instruction of roff. Specified by: man(7) of groff.
 */
import { type Command, flagOf, type Program } from "../command.ts";
import { EXIT_CODES } from "../exit-errors.ts";
import { argumentOf, meaningOf, usageOf } from "./help.ts";

/** The page, in the man macros. */
export function manPage({ version, commands }: Program): string {
  const lines = [
    `.TH DMALINK 1 "" "dmalink ${escaped(version)}" "User Commands"`,
    ".SH NAME",
    "dmalink \\- record, check, compare and simulate what a machine maps for DMA",
    ".SH SYNOPSIS",
    ".B dmalink",
    ".I COMMAND",
    "[ARGUMENTS] [OPTIONS]",
    ".SH COMMANDS",
    ...commands.flatMap(commandPart),
    ".SH EXIT STATUS",
    escaped(EXIT_CODES),
    ".SH ENVIRONMENT",
    ...term("NO_COLOR", "no colours, whatever the terminal can"),
    ...term("FORCE_COLOR", "colours, also where no terminal is; 0: none"),
    ...term("COLUMNS", "how wide lines may be, instead of the terminal's width"),
    ...term("TMPDIR", "where files in passing are"),
  ];
  return `${lines.join("\n")}\n`;
}

function commandPart(command: Command): string[] {
  const { name, summary, description, arguments: words, options, examples } = command;
  return [
    `.SS "${escaped(name)}: ${escaped(summary)}"`,
    `.B ${escaped(usageOf(command))}`,
    ".PP",
    escaped(description),
    ...words.flatMap((argument) => term(argumentOf(argument), argument.meaning)),
    ...Object.entries(options).flatMap(([key, option]) =>
      term(
        `${option.short === undefined ? "" : `-${option.short}, `}${flagOf(key)}${option.value === undefined ? "" : ` ${option.value}`}`,
        meaningOf(option),
      ),
    ),
    ".PP",
    ".EX",
    ...examples.map(escaped),
    ".EE",
  ];
}

const term = (name: string, meaning: string): string[] => [".TP", `.B ${escaped(name)}`, escaped(meaning)];

/** Text that roff prints as it is: a dash is a dash, and a line's first dot or quote begins no instruction. */
const escaped = (text: string): string =>
  text
    .replaceAll("\\", "\\e")
    .replaceAll("-", "\\-")
    .replaceAll('"', "\\(dq")
    .replace(/^([.'])/, "\\&$1");
