/**
 * dmalink, the program: finds the command that the words name, runs it, and says in an exit code how it went.
 *
 * Data goes to stdout, messages to stderr. Each command's code is loaded when it is used, so that --help is quick.
 * Promises: the code is that of the verdict also where the reader of the answer has gone; before there is a verdict it is then 141,
 * that of a program ended by a broken pipe, and never 0.
 */
import type { Program } from "./command.ts";
import { COMMANDS } from "./commands/index.ts";
import { endOf } from "./exit-errors.ts";
import { runWords } from "./run-words.ts";
import { sayError } from "./terminal/print.ts";

/** The version is that of package.json: a test holds the two against each other. */
export const PROGRAM: Program = { version: "0.2.0", commands: COMMANDS };

/** 128 and the number of SIGPIPE, as a shell shows it. */
const BROKEN_PIPE = 141;

/** Runs what the command line asks for; the process ends with the exit code. */
export async function main(): Promise<void> {
  // An interrupt ends the process at once, which a shell shows as 130; a command with something to put back listens itself.
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "EPIPE") {
      setImmediate(() => process.exit(process.exitCode ?? BROKEN_PIPE)); // the reader has seen enough; a verdict on its way counts
      return;
    }
    sayError(`cannot write the answer: ${error.message}`);
    process.exit(3);
  });
  process.stderr.on("error", () => undefined); // nobody listens; the exit code still says it
  process.on("uncaughtException", (error) => process.exit(failed(error))); // of a stream that nobody waits for
  try {
    process.exitCode = await runWords(process.argv.slice(2), PROGRAM);
  } catch (error) {
    process.exitCode = failed(error);
  }
}

/** Says what ended the program; the exit code. */
function failed(error: unknown): number {
  const { message, code } = endOf(error);
  sayError(message);
  return code;
}
