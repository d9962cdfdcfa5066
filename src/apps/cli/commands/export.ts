/** `dmalink export`: a recording for other tools: Perfetto, Parquet, or a page to look at. */
import { count, plural } from "../../../base/index.ts";
import { type Command, command } from "../command.ts";
import { UsageError } from "../exit-errors.ts";
import type { Output } from "../files/output.ts";
import type { SelectionWords } from "../files/selection.ts";
import type { TableOutputs } from "../files/table-files.ts";
import type { ReadOptions } from "../files/with-trace.ts";
import { BEST_EFFORT, file, JSON_ANSWER, PART, TRACE, text } from "../options.ts";
import { printJson, say } from "../terminal/print.ts";

/** Where each form goes. */
interface Targets {
  readonly perfetto: Output | undefined;
  readonly html: Output | undefined;
  readonly tables: TableOutputs | undefined;
}

export const exportCommand: Command = command({
  name: "export",
  summary: "the recording for other tools: Perfetto, Parquet, or one page to look at",
  description:
    "Reads the trace once and writes each form that is asked for, whole or not at all. The page has its pictures inside and " +
    "needs no network.",
  arguments: [TRACE],
  options: {
    perfetto: file("mappings, bytes mapped and findings over time, for ui.perfetto.dev"),
    parquet: text("FOLDER", "events, mappings, requests and findings as tables", { completes: "folder" }),
    html: file("a report with pictures, in one file, without a network"),
    json: JSON_ANSWER,
    ...PART,
    bestEffort: BEST_EFFORT,
  },
  examples: ["dmalink export trace.dat.gz --html report.html --perfetto trace.pftrace"],
  async run({ arguments: [path], options }) {
    const { perfetto, parquet, html, json } = options;
    if (perfetto === undefined && parquet === undefined && html === undefined)
      throw new UsageError("export where to? --perfetto FILE, --parquet FOLDER or --html FILE");
    const { Outputs } = await import("../files/output.ts");
    const { exitOnSignal, UndoOnExit } = await import("../files/undo-on-exit.ts");
    const undo = new UndoOnExit();
    const listening = exitOnSignal();
    try {
      const outputs = new Outputs(undo, [path!], json);
      return await write(path!, options, {
        perfetto: perfetto === undefined ? undefined : outputs.claim("--perfetto", perfetto),
        html: html === undefined ? undefined : outputs.claim("--html", html),
        tables:
          parquet === undefined ? undefined : (await import("../files/table-files.ts")).claimTables(parquet, outputs),
      });
    } finally {
      undo.run();
      listening();
    }
  },
});

async function write(
  path: string,
  options: ReadOptions & SelectionWords & { readonly json: boolean },
  { perfetto, html, tables }: Targets,
): Promise<number> {
  const { readRecording, reportPage, writePerfetto } = await import("../../../report/index.ts");
  const { refuseUnknown, selectionOf } = await import("../files/selection.ts");
  const selected = selectionOf(options);
  const { writeOutput } = await import("../files/output.ts");
  const { sayDamage, sayRemarks, toldEvents, withTrace } = await import("../files/with-trace.ts");
  return withTrace(path, options, async (trace, progress) => {
    const how = { ...selected, progress: toldEvents(progress) };
    const written: Record<string, unknown> = {};
    const said: string[] = [];
    let recording: Awaited<ReturnType<typeof readRecording>>;
    if (tables) {
      const result = await (await import("../files/table-files.ts")).writeTables(trace, tables, how);
      recording = result.recording;
      written.parquet = { folder: tables.folder, rows: result.rows };
      const counts = Object.entries(result.rows).map(([name, n]) => `${name} ${count(n)}`);
      said.push(`${tables.folder}: ${counts.join(", ")} rows`);
    } else recording = await readRecording(trace, how);
    refuseUnknown(selected, recording.result.devices, recording.mappings.count + recording.result.findings.length);
    if (perfetto) {
      progress.say("writing the Perfetto trace");
      const { deflateSync } = await import("node:zlib");
      const result = writeOutput(perfetto, (emit) => writePerfetto(recording, emit, (bytes) => deflateSync(bytes)));
      written.perfetto = { file: perfetto.name, ...result };
      said.push(
        `${perfetto.name}: ${plural(result.slices, "mapping")}, ${plural(result.instants, "finding")}; open it at https://ui.perfetto.dev`,
      );
      if (result.leftOut > 0)
        said.push(`${plural(result.leftOut, "mapping")} left out: more than a thousand of one device overlapped`);
    }
    if (html) {
      progress.say("drawing");
      const { deflateSync } = await import("node:zlib");
      const page = reportPage(path, recording, (bytes) => deflateSync(bytes, { level: 9 }));
      writeOutput(html, (emit) => emit(new TextEncoder().encode(page)));
      written.html = { file: html.name, bytes: page.length };
      if (html.part !== undefined) said.push(`${html.name}: open it in a browser; it needs no network`);
    }
    progress.done();
    sayDamage(path, trace);
    sayRemarks(path, trace);
    for (const line of said) say(`${line}\n`);
    if (options.json)
      printJson({
        schema: "dmalink.export/2",
        traces: [{ file: path, ...(trace.damage && { damage: trace.damage }), ...written }],
      });
    return trace.damage ? 2 : 0;
  });
}
