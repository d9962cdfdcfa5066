/** `dmalink export TRACE`: a recording for other tools: Perfetto, Parquet, or a page to look at. */
import { deflateSync } from "node:zlib";
import { count, plural } from "../../../base/index.ts";
import { type Recording, readRecording, reportPage, writePerfetto } from "../../../report/index.ts";
import type { Trace } from "../../../trace/index.ts";
import { type Output, Outputs, writeOutput } from "../files/output.ts";
import { claimTables, type TableOutputs, writeTables } from "../files/table-files.ts";
import { exitOnSignal, UndoOnExit } from "../files/undo-on-exit.ts";
import { sayDamage, withTrace } from "../files/with-trace.ts";
import { printJson, say } from "../terminal/print.ts";

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
export async function exportCommand(path: string, options: ExportOptions): Promise<number> {
  const undo = new UndoOnExit();
  const listening = exitOnSignal();
  try {
    const outputs = new Outputs(undo, [path], options.json);
    const claimed = (["perfetto", "html"] as const).map((name) => {
      const at = options[name];
      return at === undefined ? undefined : outputs.claim(`--${name}`, at);
    });
    const [perfetto, html] = claimed;
    const { parquet } = options;
    const tables = parquet === undefined ? undefined : claimTables(parquet, outputs);
    return await write(path, options, {
      ...(perfetto && { perfetto }),
      ...(html && { html }),
      ...(tables && { tables }),
    });
  } finally {
    undo.run();
    listening();
  }
}

interface Targets {
  readonly perfetto?: Output;
  readonly html?: Output;
  readonly tables?: TableOutputs;
}

function write(path: string, options: ExportOptions, { perfetto, html, tables }: Targets): Promise<number> {
  return withTrace(path, options, async (trace, progress) => {
    const written: Record<string, unknown> = {};
    const said: string[] = [];
    const recording = await read(trace, tables, written, said);
    if (perfetto) {
      progress.say("writing the Perfetto trace");
      const result = writeOutput(perfetto, (emit) => writePerfetto(recording, emit));
      written.perfetto = { file: perfetto.name, ...result };
      said.push(
        `${perfetto.name}: ${plural(result.slices, "mapping")}, ${plural(result.instants, "finding")}; open it at https://ui.perfetto.dev`,
      );
      if (result.leftOut > 0)
        said.push(`${plural(result.leftOut, "mapping")} left out: more than a thousand of one device overlapped`);
    }
    if (html) {
      progress.say("drawing");
      const page = reportPage(path, recording, (bytes) => deflateSync(bytes, { level: 9 }));
      writeOutput(html, (emit) => emit(new TextEncoder().encode(page)));
      written.html = { file: html.name, bytes: page.length };
      if (html.part !== undefined) said.push(`${html.name}: open it in a browser; it needs no network`);
    }
    progress.done();
    sayDamage(path, trace);
    for (const line of said) say(`${line}\n`);
    if (options.json)
      printJson({ schema: "dmalink.export/1", file: path, ...(trace.damage && { damage: trace.damage }), ...written });
    return trace.damage ? 2 : 0;
  });
}

/** One pass, whatever is written. */
async function read(
  trace: Trace,
  tables: TableOutputs | undefined,
  written: Record<string, unknown>,
  said: string[],
): Promise<Recording> {
  if (!tables) return readRecording(trace);
  const { recording, rows } = await writeTables(trace, tables);
  written.parquet = { folder: tables.folder, rows };
  const counts = Object.entries(rows).map(([name, n]) => `${name} ${count(n)}`);
  said.push(`${tables.folder}: ${counts.join(", ")} rows`);
  return recording;
}
