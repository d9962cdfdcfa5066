/** `dmalink export TRACE`: a recording for other tools: Perfetto, Parquet, or a page to look at. */
import type { Trace } from "../../trace/index.ts";
import type { TableOutputs } from "./export-parquet.ts";
import { type Output, Outputs, writeOutput } from "./output.ts";
import { type Recording, readRecording } from "./recording.ts";
import { exitOnSignal, Restore } from "./restore.ts";
import { count, plural } from "./table.ts";
import { print, say } from "./terminal.ts";
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
export async function exportCommand(path: string, options: ExportOptions): Promise<number> {
  const restore = new Restore();
  const listening = exitOnSignal();
  try {
    const outputs = new Outputs(restore, [path], options.json);
    const claimed = (["perfetto", "html"] as const).map((name) => {
      const at = options[name];
      return at === undefined ? undefined : outputs.claim(`--${name}`, at);
    });
    const [perfetto, html] = claimed;
    const { parquet } = options;
    const tables =
      parquet === undefined ? undefined : (await import("./export-parquet.ts")).claimTables(parquet, outputs);
    return await write(path, options, {
      ...(perfetto && { perfetto }),
      ...(html && { html }),
      ...(tables && { tables }),
    });
  } finally {
    restore.run();
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
      const { writePerfetto } = await import("./export-perfetto.ts");
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
      const { reportPage } = await import("./export-html.ts");
      const page = reportPage(path, recording);
      writeOutput(html, (emit) => emit(new TextEncoder().encode(page)));
      written.html = { file: html.name, bytes: page.length };
      if (html.part !== undefined) said.push(`${html.name}: open it in a browser; it needs no network`);
    }
    progress.done();
    sayDamage(path, trace);
    for (const line of said) say(`${line}\n`);
    if (options.json)
      print(
        `${JSON.stringify({ schema: "dmalink.export/1", file: path, ...(trace.damage && { damage: trace.damage }), ...written }, null, 2)}\n`,
      );
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
  const { writeParquet } = await import("./export-parquet.ts");
  const { recording, rows } = await writeParquet(trace, tables);
  written.parquet = { folder: tables.folder, rows };
  const counts = Object.entries(rows).map(([name, n]) => `${name} ${count(n)}`);
  said.push(`${tables.folder}: ${counts.join(", ")} rows`);
  return recording;
}
