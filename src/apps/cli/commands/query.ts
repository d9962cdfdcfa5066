/**
 * `dmalink query TRACE SQL`: questions about a trace, in SQL.
 *
 * Idea: the tables of `export --parquet` go into a temporary folder, and DuckDB answers over them. DuckDB is an optional
 * dependency, loaded here only: whoever does not query does not need it.
 */
import { join } from "node:path";
import { DmaError } from "../../../base/index.ts";
import { type Answer, answerJson, answerText, schemaJson, schemaText, TABLE_NAMES } from "../../../report/index.ts";
import { EnvironmentError } from "../exit-errors.ts";
import { Outputs } from "../files/output.ts";
import { claimTables, writeTables } from "../files/table-files.ts";
import { exitOnSignal, temporaryFolder, UndoOnExit } from "../files/undo-on-exit.ts";
import { sayDamage, withTrace } from "../files/with-trace.ts";
import { print, printJson } from "../terminal/print.ts";

export interface QueryOptions {
  readonly json?: boolean;
  readonly bestEffort?: boolean;
}

type DuckDb = typeof import("@duckdb/node-api");

/** Answers `sql` about the trace at `path`; without `sql`, what can be asked. The exit code. */
export async function query(path: string, sql: string | undefined, options: QueryOptions): Promise<number> {
  if (sql === undefined) {
    if (options.json) printJson(schemaJson());
    else print(schemaText());
    return 0;
  }
  const duckdb = await loadDuckDb();
  const undo = new UndoOnExit();
  const listening = exitOnSignal();
  try {
    const folder = temporaryFolder("dmalink-query-", undo);
    return await withTrace(path, options, async (trace, progress) => {
      await writeTables(trace, claimTables(folder, new Outputs(undo)));
      sayDamage(path, trace);
      progress.say("asking");
      const answer = await ask(duckdb, folder, sql);
      progress.done();
      if (options.json) printJson(answerJson(path, sql, answer, trace.damage));
      else print(answerText(answer));
      return trace.damage ? 2 : 0;
    });
  } finally {
    undo.run();
    listening();
  }
}

/** @throws EnvironmentError: it is not installed, or not for this machine; with the cure */
export async function loadDuckDb(load: () => Promise<DuckDb> = () => import("@duckdb/node-api")): Promise<DuckDb> {
  try {
    return await load();
  } catch (error) {
    throw new EnvironmentError(
      `query needs DuckDB, an optional dependency that is not here (${(error as Error).message.split("\n")[0]}): ` +
        "npm install @duckdb/node-api. Without it: dmalink export TRACE --parquet DIR, and ask any SQL engine that reads Parquet",
    );
  }
}

async function ask(duckdb: DuckDb, folder: string, sql: string): Promise<Answer> {
  const instance = await duckdb.DuckDBInstance.create(":memory:");
  const connection = await instance.connect();
  try {
    for (const name of TABLE_NAMES)
      await connection.run(
        `create view ${name} as select * from read_parquet('${quoted(join(folder, name))}.parquet')`,
      );
    const reader = await connection.runAndReadAll(sql);
    const types = reader.columnTypes().map(String);
    return { columns: reader.columnNames().map((name, i) => ({ name, type: types[i]! })), rows: reader.getRows() };
  } catch (error) {
    const { message } = error as Error;
    throw new DmaError(
      "ERR_DMA_QUERY",
      "EINVAL",
      `${message.trim()}\nThe tables: ${TABLE_NAMES.join(", ")}; dmalink query TRACE lists their columns`,
      { sql },
    );
  } finally {
    connection.closeSync();
    instance.closeSync();
  }
}

const quoted = (path: string): string => path.replaceAll("'", "''");
