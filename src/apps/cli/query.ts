/**
 * `dmalink query TRACE SQL`: questions about a trace, in SQL.
 *
 * Idea: the tables of `export --parquet` go into a temporary folder, and DuckDB answers over them. DuckDB is an optional
 * dependency, loaded here only: whoever does not query does not need it.
 */
import { join } from "node:path";
import { DmaError } from "../../base/index.ts";
import type { Trace } from "../../trace/index.ts";
import { EnvironmentError } from "./environment.ts";
import { visibleInLine } from "./escape.ts";
import { claimTables, writeParquet } from "./export-parquet.ts";
import { TABLE_NAMES, TABLES } from "./export-tables.ts";
import { Outputs } from "./output.ts";
import { exitOnSignal, Restore, temporaryFolder } from "./restore.ts";
import { textTable } from "./table.ts";
import { print } from "./terminal.ts";
import { sayDamage, withTrace } from "./trace.ts";

export interface QueryOptions {
  readonly json?: boolean;
  readonly bestEffort?: boolean;
}

type DuckDb = typeof import("@duckdb/node-api");

/** Answers `sql` about the trace at `path`; without `sql`, what can be asked. The exit code. */
export async function query(path: string, sql: string | undefined, options: QueryOptions): Promise<number> {
  if (sql === undefined) {
    print(options.json ? `${schemaJson()}\n` : schemaText());
    return 0;
  }
  const duckdb = await loadDuckDb();
  const restore = new Restore();
  const listening = exitOnSignal();
  try {
    const folder = temporaryFolder("dmalink-query-", restore);
    return await withTrace(path, options, async (trace, progress) => {
      await writeParquet(trace, claimTables(folder, new Outputs(restore)));
      sayDamage(path, trace);
      progress.say("asking");
      const answer = await ask(duckdb, folder, sql);
      progress.done();
      print(options.json ? `${answerJson(path, sql, answer, trace.damage)}\n` : answerText(answer));
      return trace.damage ? 2 : 0;
    });
  } finally {
    restore.run();
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

interface Answer {
  readonly columns: readonly { readonly name: string; readonly type: string }[];
  readonly rows: readonly (readonly unknown[])[];
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

/** Addresses are unsigned in the tables, and shown in hex. */
const isAddress = (type: string): boolean => type === "UBIGINT";

function shown(value: unknown, type: string): string {
  if (value === null || value === undefined) return "";
  if (typeof value === "bigint" && isAddress(type)) return `0x${value.toString(16)}`;
  if (typeof value === "number" && !Number.isInteger(value)) return value.toFixed(3);
  return String(value);
}

function answerText({ columns, rows }: Answer): string {
  const header = columns.map(({ name }) => visibleInLine(name));
  const lines = rows.map((row) => row.map((value, i) => visibleInLine(shown(value, columns[i]!.type))));
  return `${textTable(header, lines)}\n`;
}

function answerJson(file: string, sql: string, { columns, rows }: Answer, damage: Trace["damage"]): string {
  const plain = (value: unknown, type: string): unknown => {
    if (typeof value === "bigint" && !isAddress(type))
      return value <= BigInt(Number.MAX_SAFE_INTEGER) && value >= BigInt(Number.MIN_SAFE_INTEGER)
        ? Number(value)
        : `${value}`;
    if (value === null || typeof value === "number" || typeof value === "boolean") return value;
    return shown(value, type);
  };
  return JSON.stringify(
    {
      schema: "dmalink.query/1",
      file,
      sql,
      ...(damage && { damage }),
      columns,
      rows: rows.map((row) =>
        Object.fromEntries(row.map((value, i) => [columns[i]!.name, plain(value, columns[i]!.type)])),
      ),
    },
    null,
    2,
  );
}

function schemaText(): string {
  return TABLE_NAMES.map((name) => {
    const rows = TABLES[name].map((column) => [
      `  ${column.name}`,
      column.nullable ? `${column.type}?` : column.type,
      column.meaning,
    ]);
    const width = Math.max(...rows.map(([first]) => first!.length));
    return `${name}\n${rows.map(([a, b, c]) => `${a!.padEnd(width)}  ${b!.padEnd(8)}  ${c}`).join("\n")}\n`;
  }).join("\n");
}

const schemaJson = (): string => JSON.stringify({ schema: "dmalink.tables/1", tables: TABLES }, null, 2);
