/**
 * Puts back what a command changed on the machine, however the command ends.
 *
 * Idea: each change is followed by how to undo it; the last change is undone first. Runs at the end, on an exception, and
 * on exit; a signal only asks the command to stop. Promises: each step runs at most once, and one that fails does not keep
 * the others from running. Not for: what only a restart of the machine undoes; SIGKILL.
 */
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { EnvironmentError } from "../exit-errors.ts";
import { isGone, OWNER, ownerName } from "./owner.ts";

export class UndoOnExit {
  readonly #undo: { readonly what: string; readonly run: () => void }[] = [];
  readonly #onExit = (): void => void this.run();

  constructor() {
    process.on("exit", this.#onExit);
  }

  /** `run` undoes what was just done; synchronous, so that it also runs on exit. */
  add(what: string, run: () => void): void {
    this.#undo.push({ what, run });
  }

  /** A folder that is taken away with all that is in it, if it still has that name then. */
  addFolder(path: string): void {
    this.add(path, () => rmSync(path, { recursive: true, force: true }));
  }

  /** Undoes everything; what could not be undone, in words. */
  run(): string[] {
    process.off("exit", this.#onExit);
    const failed: string[] = [];
    for (let step = this.#undo.pop(); step; step = this.#undo.pop()) {
      try {
        step.run();
      } catch (error) {
        failed.push(`${step.what}: ${(error as Error).message}`);
      }
    }
    return failed;
  }
}

/** The signals that ask a command to stop. */
const STOPPING: readonly NodeJS.Signals[] = ["SIGINT", "SIGTERM", "SIGHUP"];

/** A signal ends the process by an exit, so that what is to be put back is; call the answer when nothing is left. */
export function exitOnSignal(): () => void {
  const exit = (): never => process.exit(130);
  for (const signal of STOPPING) process.on(signal, exit);
  return () => {
    for (const signal of STOPPING) process.off(signal, exit);
  };
}

/** A folder of this program's, and whose it is. */
const LEFT = new RegExp(`^dmalink-(?:query-)?(${OWNER.source})-[^-]{6}$`);

/** A folder for files in passing; `undo` takes it away, and with it those that killed processes left. */
export function temporaryFolder(prefix: string, undo: UndoOnExit): string {
  try {
    sweepTemporary();
    const folder = mkdtempSync(join(tmpdir(), `${prefix}${ownerName()}-`));
    undo.addFolder(folder);
    return folder;
  } catch (error) {
    throw new EnvironmentError(
      `cannot make a temporary folder in ${tmpdir()} (${(error as Error).message}): set TMPDIR to a folder that can be written`,
    );
  }
}

function sweepTemporary(): void {
  for (const name of readdirSync(tmpdir())) {
    const owner = LEFT.exec(name)?.[1];
    if (owner === undefined || !isGone(owner)) continue;
    try {
      rmSync(join(tmpdir(), name), { recursive: true, force: true });
    } catch {
      // Another user's: it is swept by its owner.
    }
  }
}

/** Waits for a signal to stop; a second one ends the process at once (and what was changed is still put back). */
export class StopRequest {
  readonly requested: Promise<NodeJS.Signals>;
  signal: NodeJS.Signals | undefined;
  readonly #listener: (signal: NodeJS.Signals) => void;

  constructor() {
    let tell: (signal: NodeJS.Signals) => void;
    this.requested = new Promise((resolve) => {
      tell = resolve;
    });
    this.#listener = (signal) => {
      if (this.signal !== undefined) process.exit(130);
      this.signal = signal;
      tell(signal);
    };
    for (const signal of STOPPING) process.on(signal, this.#listener);
  }

  done(): void {
    for (const signal of STOPPING) process.off(signal, this.#listener);
  }
}
