/**
 * SQL over the tables of a recording, by DuckDB.
 *
 * Idea: DuckDB is an optional dependency, loaded here only: whoever does not query does not need it.
 * Promises: a question reads and writes nothing but the tables (and what DuckDB lays in their folder in passing), unless files are
 * allowed; never the network, and no extension is fetched or loaded, whatever the question or the user's settings say.
 * Specified by: DuckDB 1.5, "Securing DuckDB".
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

/** Whether a question may reach the files of this machine. */
export interface QueryRights {
  readonly files: boolean;
  /** A folder of the program's own, for what does not fit into memory. */
  readonly spill: string;
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
  { files, spill }: QueryRights,
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
    for (const setting of [
      `allowed_directories = [${(files ? ["/"] : recordings.map(({ folder }) => `${folder}/`)).map((path) => `'${quoted(path)}'`).join(", ")}]`,
      `temp_directory = '${quoted(join(spill, "spilled"))}'`,
      "autoinstall_known_extensions = false",
      "autoload_known_extensions = false",
      "allow_community_extensions = false",
      "enable_external_access = false",
      "lock_configuration = true",
    ])
      await connection.run(`set ${setting}`);
    const statements = await connection.extractStatements(sql);
    let reader: Awaited<ReturnType<typeof connection.runAndReadAll>> | undefined;
    for (let i = 0; i < statements.count; i++) {
      const statement = await statements.prepare(i);
      if (statement.statementType === duckdb.StatementType.LOAD)
        throw new Error("Permission Error: extensions are neither fetched nor loaded");
      reader = await statement.runAndReadAll();
    }
    if (reader === undefined) throw new Error("There is no question in it");
    const types = reader.columnTypes().map(String);
    return { columns: reader.columnNames().map((name, i) => ({ name, type: types[i]! })), rows: reader.getRows() };
  } catch (error) {
    const { message } = error as Error;
    throw new DmaError(
      "ERR_DMA_QUERY",
      "EINVAL",
      `${message.trim()}${/^Permission Error/.test(message) && !files ? "\nA question reaches the tables only; --allow-files lets it read and write files" : ""}\nThe tables: ${TABLE_NAMES.join(", ")}; dmalink query TRACE lists their columns`,
      { sql },
    );
  } finally {
    connection.closeSync();
    instance.closeSync();
  }
}

const quoted = (path: string): string => path.replaceAll("'", "''");
