/** What the words of a command line ask for, done: a command, its help, or the version. */
import type { Command, Program } from "./command.ts";
import { versionLine } from "./commands/version.ts";
import { UsageError } from "./exit-errors.ts";
import { commandIn, parseCall } from "./parse.ts";
import { nearest } from "./terminal/did-you-mean.ts";
import { print } from "./terminal/print.ts";

/**
 * The exit code.
 *
 * @throws UsageError: the words ask for what there is not; with the command whose help says what there is
 */
export async function runWords(words: readonly string[], program: Program): Promise<number> {
  const { command, rest } = commandIn(words, program.commands);
  try {
    if (!command) return await withoutCommand(words, program);
    const call = parseCall(rest, command);
    if (call) return await command.run({ ...call, program });
    print((await help()).commandHelp(command));
    return 0;
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    throw new UsageError(
      `${error.message}${error.message.endsWith("?") ? "" : ";"} ${helpLine(command)} shows how it is used`,
    );
  }
}

const help = (): Promise<typeof import("./terminal/help.ts")> => import("./terminal/help.ts");

const helpLine = (command: Command | undefined): string => `dmalink ${command ? `${command.name} ` : ""}--help`;

async function withoutCommand(words: readonly string[], program: Program): Promise<number> {
  if (words.some((word) => ["-v", "-V", "--version"].includes(word))) {
    print(versionLine(program.version));
    return 0;
  }
  const asked = words.find((word) => !word.startsWith("-"));
  if (asked !== undefined) {
    const near = nearest(
      asked,
      program.commands.map(({ name }) => name),
    );
    throw new UsageError(`no command "${asked}"${near === undefined ? "" : `; did you mean ${near}?`}`);
  }
  const unknown = words.find((word) => !["-h", "--help"].includes(word));
  if (unknown !== undefined) throw new UsageError(`no command, and no option ${unknown} without one`);
  print((await help()).programHelp(program));
  return words.length > 0 ? 0 : 2;
}
