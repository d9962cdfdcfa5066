/**
 * Records with trace-cmd: what it is asked, and how it ends.
 *
 * Idea: trace-cmd gets an instance of its own, so that the machine's own recorder is not touched, and runs the command
 * itself, so that the recording is on before the command starts. Events of trace-cmd's own tasks stay in (`--no-filter`):
 * an interrupt may end a mapping on top of any task, and a missing end looks like a leak.
 * Specified by: trace-cmd-record(1), trace-cmd 2.9 to 3.3.
 */
import { spawn } from "node:child_process";
import { readdirSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { EnvironmentError } from "../exit-errors.ts";
import type { StopRequest } from "../files/undo-on-exit.ts";
import { instanceName, type TracefsPlan } from "./tracefs-recorder.ts";

/** The arguments of trace-cmd; `command` ends the recording when it ends, without one a signal does. */
const traceCmdArguments = (plan: TracefsPlan, command: readonly string[]): string[] => [
  "record",
  "-q",
  "--no-filter",
  "-o",
  plan.file,
  "-B",
  instanceName(),
  "-b",
  String(plan.bufferKiB),
  "-C",
  plan.clock,
  ...(plan.stacks ? ["-T"] : []),
  ...plan.systems.flatMap(({ name, filter }) => ["-e", name, ...(filter === "" ? [] : ["-f", filter])]),
  ...command,
];

/**
 * Records until `command` ends or `stop` is asked for.
 *
 * What the command prints goes to `output`: where this program's own goes, or all to stderr (2).
 *
 * @throws EnvironmentError: trace-cmd could not be run, or failed
 */
export async function recordWithTraceCmd(
  program: string,
  plan: TracefsPlan,
  command: readonly string[],
  stop: StopRequest,
  output: "inherit" | 2,
): Promise<void> {
  const child = spawn(program, traceCmdArguments(plan, command), { stdio: ["inherit", output, "inherit"] });
  void stop.requested.then(() => child.kill("SIGINT"));
  const { code, signal, error } = await new Promise<{ code?: number | null; signal?: string | null; error?: Error }>(
    (resolve) => {
      child.once("error", (error) => resolve({ error }));
      child.once("exit", (code, signal) => resolve({ code, signal }));
    },
  );
  if (error) throw new EnvironmentError(`cannot run ${program}: ${error.message}`);
  if (code !== 0 && stop.signal === undefined) {
    const parts = partsOf(plan.file);
    const kept =
      parts.length === 0
        ? ""
        : `. What was recorded is kept, a file for each CPU; to join it: trace-cmd restore -o recording.dat ${parts.join(" ")}`;
    throw new EnvironmentError(
      `trace-cmd ended with ${signal ?? `exit code ${code}`}: what it said is above. Without trace-cmd on the PATH, dmalink records by itself${kept}`,
    );
  }
}

/** What trace-cmd leaves when it cannot join: `FILE.cpuN`. */
function partsOf(file: string): string[] {
  const name = `${basename(file)}.cpu`;
  return readdirSync(dirname(file))
    .filter((entry) => entry.startsWith(name))
    .map((entry) => join(dirname(file), entry));
}
