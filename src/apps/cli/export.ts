/** `dmalink export TRACE`: a recording for other tools: Perfetto, Parquet, or a page to look at. */
import { closeSync, openSync, renameSync, rmSync, writeSync } from "node:fs";
import { DmaError } from "../../base/index.ts";
import type { Trace } from "../../trace/index.ts";
import { type Recording, readRecording } from "./recording.ts";
import { count, plural } from "./table.ts";
import { sayDamage, withTrace } from "./trace.ts";

export interface ExportOptions {
  /** A file for ui.perfetto.dev. */
  readonly perfetto?: string;
  /** A folder for events, mappings, requests and findings. */
  readonly parquet?: string;
  /** A page that needs nothing else. */
  readonly html?: string;
  readonly json?: boolean;
  readonly bestEffort?: boolean;
}

/** Writes what was asked for; the exit code. */
export function exportCommand(path: string, options: ExportOptions): Promise<number> {
  return withTrace(path, options, async (trace, progress) => {
    const written: Record<string, unknown> = {};
    const said: string[] = [];
    const recording = await read(trace, options, written, said);
    if (options.perfetto !== undefined) {
      progress.say("writing the Perfetto trace");
      const { writePerfetto } = await import("./export-perfetto.ts");
      const result = toFile(options.perfetto, (emit) => writePerfetto(recording, emit));
      written.perfetto = { file: options.perfetto, ...result };
      said.push(
        `${options.perfetto}: ${plural(result.slices, "mapping")}, ${plural(result.instants, "finding")}; open it at https://ui.perfetto.dev`,
      );
      if (result.leftOut > 0)
        said.push(`${plural(result.leftOut, "mapping")} left out: more than a thousand of one device overlapped`);
    }
    if (options.html !== undefined) {
      progress.say("drawing");
      const { reportPage } = await import("./export-html.ts");
      const page = reportPage(path, recording);
      toFile(options.html, (emit) => emit(new TextEncoder().encode(page)));
      written.html = { file: options.html, bytes: page.length };
      said.push(`${options.html}: open it in a browser; it needs no network`);
    }
    progress.done();
    sayDamage(path, trace);
    for (const line of said) process.stderr.write(`${line}\n`);
    if (options.json)
      process.stdout.write(`${JSON.stringify({ schema: "dmalink.export/1", file: path, ...written }, null, 2)}\n`);
    return trace.damage ? 2 : 0;
  });
}

/** One pass, whatever is written. */
async function read(
  trace: Trace,
  options: ExportOptions,
  written: Record<string, unknown>,
  said: string[],
): Promise<Recording> {
  if (options.parquet === undefined) return readRecording(trace);
  const { writeParquet } = await import("./export-parquet.ts");
  const { recording, rows } = await writeParquet(trace, options.parquet);
  written.parquet = { folder: options.parquet, rows };
  const tables = Object.entries(rows).map(([name, n]) => `${name} ${count(n)}`);
  said.push(`${options.parquet}: ${tables.join(", ")} rows`);
  return recording;
}

/** A file that is there whole or not at all. */
function toFile<T>(path: string, write: (emit: (bytes: Uint8Array) => void) => T): T {
  const part = `${path}.part`;
  try {
    const handle = openSync(part, "w");
    try {
      const result = write((bytes) => {
        for (let at = 0; at < bytes.length; ) at += writeSync(handle, bytes, at);
      });
      renameSync(part, path);
      return result;
    } finally {
      closeSync(handle);
    }
  } catch (error) {
    rmSync(part, { force: true });
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === undefined) throw error;
    throw new DmaError("ERR_DMA_OUTPUT", "EIO", `cannot write ${path}: ${message}`, { path });
  }
}
