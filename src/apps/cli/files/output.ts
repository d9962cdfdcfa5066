/**
 * The files a command writes: whole or not at all, and never over what it reads.
 *
 * Idea: bytes go into a file of their own beside the target, which takes the target's name when it is whole. A link is
 * followed first. What is not a regular file (a FIFO, a terminal, /dev/null) is written straight, and stays what it is.
 * Promises: an output that is an input, or another output of the same call, is refused before anything is read; what is
 * not finished is gone however the command ends, if its {@link UndoOnExit} runs, and what a process that was killed left is taken
 * away by the next that writes the same target. A part is a new file, never one that somebody laid there; its bytes are on the disk
 * before it takes the target's name, so that a crash of the machine leaves the old file or the new one.
 */
import {
  closeSync,
  constants,
  fstatSync,
  fsyncSync,
  openSync,
  readdirSync,
  readlinkSync,
  realpathSync,
  renameSync,
  rmSync,
  type Stats,
  statSync,
  writeSync,
} from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { DmaError } from "../../../base/index.ts";
import { EnvironmentError } from "../exit-errors.ts";
import { isGone, OWNER, ownerName } from "./owner.ts";
import { STANDARD_INPUT } from "./standard-input.ts";
import type { UndoOnExit } from "./undo-on-exit.ts";

/** Where one output goes. */
export interface Output {
  /** As it was asked for. */
  readonly name: string;
  /** What to open and write; `undefined`: standard output. */
  readonly part: string | undefined;
  /** The target itself, links followed. */
  readonly target: string;
  /** Only the target's own, whole: call it when all is written and closed. */
  finish(): void;
}

/** All outputs of one call. */
export class Outputs {
  readonly #undo: UndoOnExit;
  readonly #lasting: boolean;
  readonly #taken = new Map<string, string>();

  /**
   * `undo` takes away what is not finished. `answers`: standard output has the command's own answer (--json). `lasting`: the files
   * outlive the command, and are worth the wait until the disk has them.
   */
  constructor(undo: UndoOnExit, inputs: readonly string[] = [], answers = false, lasting = true) {
    this.#undo = undo;
    this.#lasting = lasting;
    if (answers) this.#take(fstatSync(1), "the answer on standard output");
    for (const path of inputs) this.#take(path === STANDARD_INPUT ? fstatSync(0) : statOf(path), "an input");
  }

  /**
   * The output that `option` asks for at `path`; nothing is written yet, and nothing there is changed.
   *
   * @throws DmaError ERR_DMA_OUTPUT (EINVAL): no name, a directory, an input, or taken by another output; (EIO): not writable
   */
  claim(option: string, path: string): Output {
    if (path === "") throw refused(option, `${option}: the name is empty; name a file`);
    if (path === STANDARD_INPUT) {
      this.#claim(option, "-", fstatSync(1), "standard output");
      return { name: "standard output", part: undefined, target: "-", finish: () => undefined };
    }
    try {
      const target = followed(path);
      const found = statOf(target);
      if (found?.isDirectory()) throw refused(path, `${option} ${path} is a directory: name a file`);
      this.#claim(option, path, found, target);
      if (found && !found.isFile()) return { name: path, part: target, target, finish: () => undefined };
      sweep(target);
      const part = `${target}.${ownerName()}.part`;
      this.#undo.add(part, () => rmSync(part, { force: true }));
      const finish = (): void => {
        if (this.#lasting) settle(part);
        renameSync(part, target);
      };
      return { name: path, part, target, finish };
    } catch (error) {
      throw cannotWrite(path, error);
    }
  }

  #claim(option: string, path: string, found: Stats | undefined, target: string): void {
    if (found?.isCharacterDevice()) return; // a terminal or /dev/null takes any number
    const id = idOf(found) ?? target;
    const by = this.#taken.get(id);
    if (by !== undefined)
      throw refused(path, `${option} ${path} is ${by} too, and would replace it: name another file`);
    this.#taken.set(id, `${option}'s file`);
  }

  #take(found: Stats | undefined, what: string): void {
    const id = idOf(found);
    if (id !== undefined && !found!.isCharacterDevice()) this.#taken.set(id, what);
  }
}

/** Writes `output` by `write`, whole. */
export function writeOutput<T>(output: Output, write: (emit: (bytes: Uint8Array) => void) => T): T {
  if (output.part === undefined) return write((bytes) => void process.stdout.write(bytes.slice()));
  try {
    const handle = openPart(output);
    let result: T;
    try {
      result = write((bytes) => {
        for (let at = 0; at < bytes.length; ) at += writeSync(handle, bytes, at);
      });
    } finally {
      closeSync(handle);
    }
    output.finish();
    return result;
  } catch (error) {
    throw cannotWrite(output.name, error);
  }
}

/** Opens what is written of `output`: a new file of this process, or what lies there that is no regular file. */
export function openPart({ part, target }: Output): number {
  return part === target ? openSync(target, "w") : openNew(part!);
}

/** A file that was not there, and no link that somebody laid there: in a folder that all may write that might be anyone's. */
export function openNew(path: string): number {
  rmSync(path, { force: true }); // the name is this process's alone
  return openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW);
}

/** Waits until the disk has the file. */
function settle(path: string): void {
  const handle = openSync(path, "r");
  try {
    fsyncSync(handle);
  } finally {
    closeSync(handle);
  }
}

const LEFT = new RegExp(`^(${OWNER.source})\\.part$`);

/** Takes away what processes that are no more left of `target`; not their recordings (`.part.cpuN`), which can be joined. */
function sweep(target: string): void {
  const [folder, name] = [dirname(target), `${basename(target)}.`];
  try {
    const entries = readdirSync(folder);
    for (const entry of entries) {
      const owner = entry.startsWith(name) ? LEFT.exec(entry.slice(name.length))?.[1] : undefined;
      if (owner === undefined || !isGone(owner) || entries.some((other) => other.startsWith(`${entry}.`))) continue;
      rmSync(join(folder, entry), { force: true });
    }
  } catch {
    // A folder that cannot be listed is swept by who can.
  }
}

/** Not the path is at fault, but the machine. */
const MACHINE: readonly string[] = ["ENOSPC", "EDQUOT", "EIO", "EROFS", "EMFILE", "ENFILE", "ENOMEM"];

/** The system's error in our words; other errors as they are. */
export function cannotWrite(path: string, error: unknown): unknown {
  const { code, message } = error as NodeJS.ErrnoException;
  if (error instanceof DmaError || code === undefined) return error;
  const said = `cannot write ${path}: ${message}`;
  return MACHINE.includes(code) ? new EnvironmentError(said) : new DmaError("ERR_DMA_OUTPUT", "EIO", said, { path });
}

const refused = (path: string, message: string): DmaError =>
  new DmaError("ERR_DMA_OUTPUT", "EINVAL", message, { path });

const statOf = (path: string): Stats | undefined => statSync(path, { throwIfNoEntry: false });
const idOf = (found: Stats | undefined): string | undefined => found && `${found.dev}:${found.ino}`;

/** `path` without links; one that leads to nothing yet leads to where the file will be. */
function followed(path: string): string {
  const found = statOf(path);
  if (found?.isFile()) return realpathSync(path);
  if (found) return path; // /dev/stdout leads to a pipe that has no name
  const place = join(realpathSync(dirname(path)), basename(path));
  let link: string;
  try {
    link = readlinkSync(place);
  } catch {
    return place;
  }
  return followed(resolve(dirname(place), link));
}
