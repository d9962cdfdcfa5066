/**
 * What ends the program early, and with which exit code.
 *
 * 0 clean, 1 findings (or a byte that came out wrong), 2 usage or bad input, 3 environment, 70 a fault of dmalink itself,
 * 130 interrupted, 141 the reader went before there was a verdict. A command answers its code; what it throws becomes one here.
 */
import { DmaError } from "../../base/index.ts";

/** What the codes mean, as help says it. */
export const EXIT_CODES =
  "0 clean, 1 findings, 2 usage or bad input, 3 environment, 70 a fault of dmalink, 130 interrupted";

/**
 * What the machine must have for a command, and has not: the command ends with exit code 3.
 *
 * The message says what is missing and the command that cures it; nothing has been changed on the machine by then.
 */
export class EnvironmentError extends Error {
  override readonly name = "EnvironmentError";
}

/** The command line asks for what there is not, or not like this: exit code 2, and where to read how. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

/** Errors that name no call of the system and are its all the same: a worker that cannot be started, or has too little memory. */
const OF_THE_MACHINE: readonly string[] = [
  "EMFILE",
  "ENFILE",
  "ENOMEM",
  "EAGAIN",
  "ERR_WORKER_OUT_OF_MEMORY",
  "ERR_WORKER_INIT_FAILED",
  "ERR_MEMORY_ALLOCATION_FAILED",
];

/** What is said of `error`, and the exit code, which is never that of a finding. */
export function endOf(error: unknown): { readonly message: string; readonly code: number } {
  const { message, stack, syscall, code } = error as NodeJS.ErrnoException;
  if (error instanceof UsageError || error instanceof DmaError) return { message, code: 2 };
  if (error instanceof RangeError && /allocation failed|Invalid (typed )?array (buffer )?length/i.test(message))
    return { message: `not enough memory (${message}): take a part of the trace by --from and --to`, code: 3 };
  if (error instanceof EnvironmentError || syscall !== undefined) return { message, code: 3 };
  if (code !== undefined && OF_THE_MACHINE.includes(code)) return { message: `${message} (${code})`, code: 3 };
  return { message: `this is a fault of dmalink, please report it:\n${stack ?? error}`, code: 70 };
}
