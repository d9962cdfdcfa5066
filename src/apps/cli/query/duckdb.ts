/**
 * SQL over the tables of a recording, by DuckDB.
 *
 * Idea: DuckDB is an optional dependency, loaded here only: whoever does not query does not need it.
 */
import { join } from "node:path";
import { DmaError } from "../../../base/index.ts";
import { type Answer, TABLE_NAMES } from "../../../report/tables/index.ts";
import { EnvironmentError } from "../exit-errors.ts";
import type { RecordingTables } from "./recordings.ts";

/** DuckDB's module. */
export type DuckDb = typeof import("@duckdb/node-api");

/**
 * DuckDB, loaded.
 *
 * @throws EnvironmentError: it is not installed, or not for this machine; with the cure
 */
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

/**
 * What `sql` answers over the tables of `recordings`; `named`: each row says of which file it is.
 *
 * @throws DmaError ERR_DMA_QUERY (EINVAL): what is wrong with the question, and which tables there are
 */
export async function ask(
  duckdb: DuckDb,
  recordings: readonly RecordingTables[],
  named: boolean,
  sql: string,
): Promise<Answer> {
  const instance = await duckdb.DuckDBInstance.create(":memory:");
  const connection = await instance.connect();
  try {
    for (const name of TABLE_NAMES)
      await connection.run(
        `create view ${name} as ${recordings
          .map(({ file, folder }) => {
            const column = named ? `'${quoted(file)}' as file, ` : "";
            return `select ${column}* from read_parquet('${quoted(join(folder, name))}.parquet')`;
          })
          .join(" union all ")}`,
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
