/** `dmalink query`: questions about a recording, in SQL. */
import { type Command, command } from "../command.ts";
import { BEST_EFFORT, JSON_ANSWER, TRACE } from "../options.ts";
import { print, printJson } from "../terminal/print.ts";

export const query: Command = command({
  name: "query",
  summary: "ask about a recording in SQL; without SQL, what the tables are",
  description:
    "Makes the tables of export --parquet in a temporary folder and asks DuckDB, an optional dependency. Addresses are shown in " +
    "hex; times are nanoseconds of the trace's own clock.",
  arguments: [TRACE, { name: "SQL", meaning: "the question, as one word: in quotes", optional: true }],
  options: { json: JSON_ANSWER, bestEffort: BEST_EFFORT },
  examples: ["dmalink query trace.dat.gz 'select device, count(*) from mappings group by device'"],
  async run({ arguments: [path, sql], options }) {
    const { answerJson, answerText, schemaJson, schemaText } = await import("../../../report/index.ts");
    if (sql === undefined) {
      if (options.json) printJson(schemaJson());
      else print(schemaText());
      return 0;
    }
    const { ask, loadDuckDb } = await import("../query/duckdb.ts");
    const { Outputs } = await import("../files/output.ts");
    const { claimTables, writeTables } = await import("../files/table-files.ts");
    const { exitOnSignal, temporaryFolder, UndoOnExit } = await import("../files/undo-on-exit.ts");
    const { sayDamage, withTrace } = await import("../files/with-trace.ts");
    const duckdb = await loadDuckDb();
    const undo = new UndoOnExit();
    const listening = exitOnSignal();
    try {
      const folder = temporaryFolder("dmalink-query-", undo);
      return await withTrace(path!, options, async (trace, progress) => {
        await writeTables(trace, claimTables(folder, new Outputs(undo)));
        sayDamage(path!, trace);
        progress.say("asking");
        const answer = await ask(duckdb, folder, sql);
        progress.done();
        if (options.json) printJson(answerJson(path!, sql, answer, trace.damage));
        else print(answerText(answer));
        return trace.damage ? 2 : 0;
      });
    } finally {
      undo.run();
      listening();
    }
  },
});
