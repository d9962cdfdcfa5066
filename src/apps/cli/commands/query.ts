/** `dmalink query`: questions about a recording, in SQL. */
import { type Command, command } from "../command.ts";
import { UsageError } from "../exit-errors.ts";
import { STANDARD_INPUT } from "../files/standard-input.ts";
import { BEST_EFFORT, file, flag, JSON_ANSWER, PART, TRACE } from "../options.ts";
import { print, printJson, writeText } from "../terminal/print.ts";

/** Bytes. */
const LONGEST_QUESTION = 1 << 20;

export const query: Command = command({
  name: "query",
  summary: "ask about a recording in SQL; without SQL, what the tables are",
  description:
    "Makes the tables of export --parquet in a temporary folder and asks DuckDB, an optional dependency. Addresses are shown in " +
    "hex; times are nanoseconds of the trace's own clock. Of several statements, the last one's answer is shown. " +
    "A question reaches nothing but the tables, and never the network.",
  arguments: [TRACE, { name: "SQL", meaning: "the question, as one word: in quotes", optional: true }],
  options: {
    file: file("the question, from a file; - for standard input", { short: "f" }),
    csv: flag("the answer as CSV, with a line of names"),
    json: JSON_ANSWER,
    allowFiles: flag("the question may read and write files of this machine, which it may not without"),
    ...PART,
    bestEffort: BEST_EFFORT,
  },
  examples: [
    "dmalink query trace.dat.gz 'select device, count(*) from mappings group by device'",
    "dmalink query trace.dat.gz -f busiest.sql --csv > busiest.csv",
  ],
  async run({ arguments: [path, words], options }) {
    if (words !== undefined && options.file !== undefined)
      throw new UsageError("the question is asked twice: as a word, and with --file");
    if (options.csv && options.json) throw new UsageError("--csv and --json: the answer has one form");
    const { answerCsv, answerJson, answerText, schemaJson, schemaText } = await import("../../../report/index.ts");
    const sql = options.file === undefined ? words : await questionIn(options.file, path!);
    if (sql === undefined) {
      if (options.json) printJson(schemaJson());
      else print(schemaText());
      return 0;
    }
    const { ask, loadDuckDb } = await import("../query/duckdb.ts");
    const { Outputs } = await import("../files/output.ts");
    const { claimTables, writeTables } = await import("../files/table-files.ts");
    const { exitOnSignal, temporaryFolder, UndoOnExit } = await import("../files/undo-on-exit.ts");
    const { sayDamage, sayRemarks, withTrace } = await import("../files/with-trace.ts");
    const duckdb = await loadDuckDb();
    const undo = new UndoOnExit();
    const listening = exitOnSignal();
    try {
      const folder = temporaryFolder("dmalink-query-", undo);
      return await withTrace(path!, options, async (trace, progress) => {
        await writeTables(trace, claimTables(folder, new Outputs(undo, [], false, false)));
        sayDamage(path!, trace);
        sayRemarks(path!, trace);
        progress.say("asking");
        const answer = await ask(duckdb, folder, sql, { files: options.allowFiles });
        progress.done();
        if (options.json) printJson(answerJson(path!, sql, answer, trace.damage));
        else if (options.csv) writeText(answerCsv(answer));
        else print(answerText(answer));
        return trace.damage ? 2 : 0;
      });
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
