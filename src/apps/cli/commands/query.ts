/** `dmalink query`: questions about a recording, in SQL. */
import { type Command, command } from "../command.ts";
import { UsageError } from "../exit-errors.ts";
import { STANDARD_INPUT } from "../files/standard-input.ts";
import { BEST_EFFORT, file, flag, JSON_ANSWER, PART, TRACE } from "../options.ts";
import { print, printJson, say, writeText } from "../terminal/print.ts";

/** Bytes. */
const LONGEST_QUESTION = 1 << 20;

export const query: Command = command({
  name: "query",
  summary: "ask about a recording in SQL; without SQL, what the tables are",
  description:
    "Makes the tables of export --parquet and asks DuckDB, an optional dependency. The tables are kept in the cache " +
    "($XDG_CACHE_HOME or ~/.cache, in dmalink/tables) until the trace changes, so that the next question is answered at once. Of a " +
    "folder all traces in it are asked, and each row has their name in the column file. Addresses are shown in hex; times are " +
    "nanoseconds of the trace's own clock. Of several statements, the last one's answer is shown. " +
    "A question reaches nothing but the tables, and never the network.",
  arguments: [
    { ...TRACE, meaning: `${TRACE.meaning}; or a folder of them` },
    { name: "SQL", meaning: "the question, as one word: in quotes", optional: true },
  ],
  options: {
    file: file("the question, from a file; - for standard input", { short: "f" }),
    csv: flag("the answer as CSV, with a line of names"),
    json: JSON_ANSWER,
    noCache: flag("keep no tables, and ask none that were kept"),
    allowFiles: flag("the question may read and write files of this machine, which it may not without"),
    ...PART,
    bestEffort: BEST_EFFORT,
  },
  examples: [
    "dmalink query trace.dat.gz 'select device, count(*) from mappings group by device'",
    "dmalink query trace.dat.gz -f busiest.sql --csv > busiest.csv",
    "dmalink query recorded 'select file, count(*) from mappings group by file'",
  ],
  async run({ arguments: [path, words], options, program }) {
    if (words !== undefined && options.file !== undefined)
      throw new UsageError("the question is asked twice: as a word, and with --file");
    if (options.csv && options.json) throw new UsageError("--csv and --json: the answer has one form");
    const { answerCsv, answerJson, answerText, schemaJson, schemaText } = await import(
      "../../../report/tables/index.ts"
    );
    const sql = options.file === undefined ? words : await questionIn(options.file, path!);
    if (sql === undefined) {
      if (options.json) printJson(schemaJson());
      else print(schemaText());
      return 0;
    }
    const { ask, loadDuckDb } = await import("../query/duckdb.ts");
    const { recordingTables } = await import("../query/recordings.ts");
    const { isFolder, leftOutWords, tracesAt } = await import("../files/folder.ts");
    const { exitOnSignal, temporaryFolder, UndoOnExit } = await import("../files/undo-on-exit.ts");
    const duckdb = await loadDuckDb();
    const undo = new UndoOnExit();
    const listening = exitOnSignal();
    try {
      const traces = tracesAt([path!]);
      const { recordings, leftOut } = await recordingTables(traces, options, program.version, undo);
      if (leftOut.length > 0) say(`${leftOutWords(leftOut)}\n`);
      if (recordings.length === 0) throw new UsageError(`${path}: no trace is in this folder`);
      const answer = await ask(duckdb, recordings, isFolder(path!), sql, {
        files: options.allowFiles,
        spill: temporaryFolder("dmalink-query-", undo),
      });
      const damage = recordings.find((one) => one.damage)?.damage;
      if (options.json) printJson(answerJson(recordings, sql, answer));
      else if (options.csv) writeText(answerCsv(answer));
      else print(answerText(answer));
      return damage ? 2 : 0;
    } finally {
      undo.run();
      listening();
    }
  },
});

/** The question that the file at `name` holds. */
async function questionIn(name: string, trace: string): Promise<string> {
  if (name === STANDARD_INPUT && trace === STANDARD_INPUT)
    throw new UsageError("standard input is the trace or the question: name a file for one of them");
  const { readText } = await import("../files/input.ts");
  const sql = (await readText(name, LONGEST_QUESTION)).trim();
  if (sql === "") throw new UsageError(`--file ${name}: there is no question in it`);
  return sql;
}
