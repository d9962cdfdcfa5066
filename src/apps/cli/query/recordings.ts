/**
 * The tables of the recordings that a question is about: from the cache, or made now.
 *
 * Idea: making them takes seconds, asking them a tenth of one; what makes them is loaded only then. Of a folder each file has its own tables, and one that is no trace
 * is left out and said.
 */
import { join } from "node:path";
import type { Trace } from "../../../trace/index.ts";
import { isNoTrace, type NamedTrace } from "../files/folder.ts";
import type { SelectionWords } from "../files/selection.ts";
import { temporaryFolder, type UndoOnExit } from "../files/undo-on-exit.ts";
import type { ReadOptions } from "../files/with-trace.ts";
import { CacheEntry } from "./cache.ts";

/** The tables of one recording. */
export interface RecordingTables {
  readonly file: string;
  readonly folder: string;
  readonly damage: Trace["damage"];
}

/** What is asked of each recording. */
export interface RecordingAsked extends ReadOptions, SelectionWords {
  readonly noCache: boolean;
}

/**
 * The tables of `traces`; `undo` takes away what is not kept.
 *
 * @throws DmaError: a trace that cannot be read
 */
export async function recordingTables(
  traces: readonly NamedTrace[],
  asked: RecordingAsked,
  version: string,
  undo: UndoOnExit,
): Promise<{ readonly recordings: RecordingTables[]; readonly leftOut: string[] }> {
  const recordings: RecordingTables[] = [];
  const leftOut: string[] = [];
  for (const { path, found } of traces)
    try {
      recordings.push(await tablesOf(path, asked, version, undo));
    } catch (error) {
      if (!found || !isNoTrace(error)) throw error;
      leftOut.push(path);
    }
  return { recordings, leftOut };
}

async function tablesOf(
  path: string,
  asked: RecordingAsked,
  version: string,
  undo: UndoOnExit,
): Promise<RecordingTables> {
  const { from, to, bestEffort, device, task, cpu, noCache } = asked;
  const entry = noCache ? undefined : CacheEntry.of(path, { version, from, to, bestEffort, device, task, cpu });
  const kept = entry?.find();
  if (entry && kept) {
    if (kept.damage || kept.remarks.length > 0) {
      const { sayDamage, sayRemarks } = await import("../files/with-trace.ts");
      sayDamage(path, kept);
      sayRemarks(path, { remarks: kept.remarks.map((message) => ({ message })) });
    }
    return { file: path, folder: entry.folder, damage: kept.damage };
  }
  const { Outputs } = await import("../files/output.ts");
  const { refuseUnknown, selectionOf } = await import("../files/selection.ts");
  const { claimTables, writeTables } = await import("../files/table-files.ts");
  const { sayDamage, sayRemarks, toldEvents, withTrace } = await import("../files/with-trace.ts");
  let made: RecordingTables | undefined;
  await withTrace(path, asked, async (trace, progress) => {
    const beside = entry?.begin();
    if (beside !== undefined) undo.addFolder(beside);
    const folder = beside ?? join(temporaryFolder("dmalink-query-", undo), "tables");
    const selected = selectionOf(asked);
    const how = { ...selected, progress: toldEvents(progress) };
    const { recording } = await writeTables(trace, claimTables(folder, new Outputs(undo, [], false, false)), how);
    refuseUnknown(selected, recording.result.devices, recording.mappings.count + recording.result.findings.length);
    progress.done();
    sayDamage(path, trace);
    sayRemarks(path, trace);
    const remarks = trace.remarks.map(({ message }) => message);
    const at = beside === undefined ? folder : entry!.keep(beside, { damage: trace.damage, remarks });
    made = { file: path, folder: at, damage: trace.damage };
    return 0;
  });
  return made!;
}
