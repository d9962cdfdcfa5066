/**
 * What any file may cost any command that reads it, and how a command is run to find out.
 *
 * Promises of the program that are judged here: under 1 MB of input, 5 seconds of processor time and 512 MB of memory; an exit code
 * that is an answer or a refusal; never a fault of the program.
 */
import { COMMANDS } from "../../src/apps/cli/commands/index.ts";
import { endOf } from "../../src/apps/cli/exit-errors.ts";
import { runWords } from "../../src/apps/cli/run-words.ts";

/** For a file below 1 MB. */
export const BUDGET: { readonly seconds: number; readonly mebibytes: number } = { seconds: 5, mebibytes: 512 };

/** The commands that read a file of each kind, without its name. */
export const COMMANDS_OF: Readonly<Record<"trace" | "log" | "snapshot", readonly (readonly string[])[]>> = {
  trace: [
    ["check", "--best-effort"],
    ["stats", "--json", "--best-effort"],
    ["compare", "--best-effort"],
  ],
  log: [["check", "--best-effort"]],
  snapshot: [
    ["tables", "--root", "0xde0000", "--json"],
    ["tables", "--root", "0xde0000"],
  ],
};

/** What is wrong with how `words` went, in one line; undefined: nothing. */
export async function faultOf(words: readonly string[]): Promise<string | undefined> {
  const out = process.stdout.write;
  const err = process.stderr.write;
  process.stdout.write = () => true;
  process.stderr.write = () => true;
  const before = process.cpuUsage();
  let code = 0;
  let message = "";
  try {
    code = await runWords(words, { version: "fuzz", commands: COMMANDS });
  } catch (error) {
    ({ code, message } = endOf(error));
  } finally {
    process.stdout.write = out;
    process.stderr.write = err;
  }
  const { user, system } = process.cpuUsage(before);
  const seconds = (user + system) / 1e6;
  if (![0, 1, 2].includes(code)) return `exit code ${code}: ${message.split("\n").slice(0, 3).join(" ")}`;
  if (seconds > BUDGET.seconds) return `${seconds.toFixed(1)} s of processor time`;
  return undefined;
}
