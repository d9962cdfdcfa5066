/**
 * The traces that the words of a command line name: files as they are, and of a folder the files in it.
 *
 * Idea: what is a trace is known once it is opened, not by its name. So every file of a folder is tried, and one that is no trace
 * is left out and said; a file that was named by itself is an error then. Folders in it are gone through too, in the order of names;
 * links to folders are not followed, nor is what begins with a dot.
 */
import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { DmaError, plural } from "../../../base/index.ts";
import { STANDARD_INPUT } from "./standard-input.ts";

/** A file to read. */
export interface NamedTrace {
  readonly path: string;
  /** It was found in a folder that was named: it may be something else than a trace. */
  readonly found: boolean;
}

/** `path` is a folder. */
export const isFolder = (path: string): boolean =>
  path !== STANDARD_INPUT && statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;

/**
 * The files that `paths` name.
 *
 * @throws DmaError ERR_DMA_INPUT (ENOENT, EIO): a folder without files, or one that cannot be read
 */
export function tracesAt(paths: readonly string[]): NamedTrace[] {
  return paths.flatMap((path): NamedTrace[] => {
    if (!isFolder(path)) return [{ path, found: false }];
    const files = filesIn(path);
    if (files.length === 0)
      throw new DmaError("ERR_DMA_INPUT", "ENOENT", `${path}: no file is in this folder`, { path });
    return files.map((file) => ({ path: file, found: true }));
  });
}

function filesIn(folder: string): string[] {
  try {
    const entries = readdirSync(folder, { withFileTypes: true }).filter(({ name }) => !name.startsWith("."));
    entries.sort((a, b) => (a.name < b.name ? -1 : 1));
    return entries.flatMap((entry) => {
      const path = join(folder, entry.name);
      if (entry.isDirectory()) return filesIn(path);
      return statSync(path, { throwIfNoEntry: false })?.isFile() ? [path] : [];
    });
  } catch (error) {
    if (error instanceof DmaError) throw error;
    throw new DmaError("ERR_DMA_INPUT", "EIO", `cannot read ${folder}: ${(error as Error).message}`, { folder });
  }
}

/** `error` says that a file is no trace at all. */
export const isNoTrace = (error: unknown): boolean =>
  error instanceof DmaError && error.code === "ERR_DMA_TRACE_FORMAT";

/** Names that are said of files that were left out. */
const NAMED = 3;

/** What is said of the files of a folder that are no traces. */
export function leftOutWords(paths: readonly string[]): string {
  const names = paths.slice(0, NAMED).join(", ");
  const verb = paths.length === 1 ? "is no trace and was" : "are no traces and were";
  return `${plural(paths.length, "file")} ${verb} left out: ${names}${paths.length > NAMED ? ", ..." : ""}`;
}
