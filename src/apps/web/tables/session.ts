/** Page tables that are open: the last two files of them, kept while other views are shown. */
import { type ReadonlySignal, signal } from "@preact/signals";
import { WorkerCalls } from "../frame/calls.ts";
import type { TraceCalls } from "../trace/worker.ts";
import type { TableFiles, TablesAnswer } from "./read-tables.ts";

const read = signal<readonly TablesAnswer[]>([]);
const failed = signal<string | undefined>(undefined);

/** What was opened, the last one first; at most two, which are compared. */
export const openedTables: ReadonlySignal<readonly TablesAnswer[]> = read;
/** What went wrong with the last one. */
export const tablesFailure: ReadonlySignal<string | undefined> = failed;

/** By its name: a snapshot of tables, or the text of debugfs. */
export const isTables = ({ name }: File): boolean => /\.snap(\.gz|\.zst)?$|translation_struct|debugfs/i.test(name);

/** Pairs snapshots with the JSON of their registers, by name. */
function paired(files: readonly File[]): TableFiles[] {
  const stem = (name: string): string => name.replace(/(\.snap)?(\.gz|\.zst)?$/, "").replace(/\.json$/, "");
  return files
    .filter(({ name }) => !name.endsWith(".json"))
    .map((tables) => {
      const registers = files.find(({ name }) => name.endsWith(".json") && stem(name) === stem(tables.name));
      return { tables, ...(registers && { registers }) };
    });
}

/** Reads `files`, each with the JSON beside it. */
export async function openTables(files: readonly File[]): Promise<void> {
  failed.value = undefined;
  const worker = new WorkerCalls<TraceCalls>("trace");
  try {
    for (const each of paired(files)) read.value = [await worker.call("tables", each), ...read.value].slice(0, 2);
  } catch (error) {
    failed.value = (error as Error).message;
  } finally {
    worker.end();
  }
}
