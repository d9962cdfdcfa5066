/**
 * The tables of a recording as Parquet files, one each: for DuckDB, pandas, Polars, Spark.
 *
 * Idea: rows are gathered to groups of 50,000 and written at once, so that memory does not follow the trace's length.
 * Promises: a folder that holds all four files, whole, or an error. Specified by: the Apache Parquet format.
 */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { type ColumnSource, fileWriter, ParquetWriter, type SchemaElement } from "hyparquet-writer";
import { DmaError } from "../../base/index.ts";
import type { Trace } from "../../trace/index.ts";
import {
  EventRows,
  findingRows,
  mappingRows,
  requestRows,
  TABLE_NAMES,
  TABLES,
  type TableColumn,
  type TableName,
  type Value,
} from "./export-tables.ts";
import { STANDARD_INPUT } from "./input.ts";
import { cannotWrite, type Output, type Outputs } from "./output.ts";
import { type Recording, readRecording } from "./recording.ts";

const ROWS_PER_GROUP = 50_000;

/** How a column is stored. */
const STORED: Readonly<Record<TableColumn["type"], Partial<SchemaElement>>> = {
  uint64: { type: "INT64", converted_type: "UINT_64" },
  int64: { type: "INT64" },
  int32: { type: "INT32" },
  string: { type: "BYTE_ARRAY", converted_type: "UTF8" },
  boolean: { type: "BOOLEAN" },
};

const schemaOf = (columns: readonly TableColumn[]): SchemaElement[] => [
  { name: "root", num_children: columns.length },
  ...columns.map(
    ({ name, type, nullable }) =>
      ({ name, repetition_type: nullable ? "OPTIONAL" : "REQUIRED", ...STORED[type] }) as SchemaElement,
  ),
];

/** One file, row by row. */
class TableFile {
  rows = 0;
  readonly #columns: readonly TableColumn[];
  readonly #writer: ParquetWriter;
  #data: Value[][];

  constructor(path: string, name: TableName) {
    this.#columns = TABLES[name];
    this.#writer = new ParquetWriter({
      writer: fileWriter(path),
      schema: schemaOf(this.#columns),
      createdBy: "dmalink",
      kvMetadata: [{ key: "dmalink.table", value: `${name}/1` }],
    });
    this.#data = this.#columns.map(() => []);
  }

  add(row: readonly Value[]): void {
    for (let i = 0; i < row.length; i++) this.#data[i]!.push(row[i]!);
    if (++this.rows % ROWS_PER_GROUP === 0) this.#flush();
  }

  finish(): void {
    if (this.#data[0]!.length > 0) this.#flush();
    this.#writer.finish();
  }

  #flush(): void {
    const columnData = this.#columns.map(({ name }, i): ColumnSource => ({ name, data: this.#data[i]! }));
    this.#writer.write({ columnData, rowGroupSize: ROWS_PER_GROUP });
    this.#data = this.#columns.map(() => []);
  }
}

export interface ParquetResult {
  readonly recording: Recording;
  /** Rows of each table. */
  readonly rows: Readonly<Record<TableName, number>>;
}

/** Where the tables go. */
export interface TableOutputs {
  readonly folder: string;
  readonly files: Readonly<Record<TableName, Output>>;
}

/**
 * Places for the tables in `folder`, as NAME.parquet; the folder is made.
 *
 * @throws DmaError ERR_DMA_OUTPUT (EINVAL, EIO): it cannot be written, or an input or another output lies there
 */
export function claimTables(folder: string, outputs: Outputs): TableOutputs {
  if (folder === "" || folder === STANDARD_INPUT)
    throw new DmaError("ERR_DMA_OUTPUT", "EINVAL", "--parquet: four files are written; name a folder");
  try {
    mkdirSync(folder, { recursive: true });
  } catch (error) {
    throw cannotWrite(`into ${folder}`, error);
  }
  const files = TABLE_NAMES.map((name) => [name, outputs.claim("--parquet", join(folder, `${name}.parquet`))]);
  return { folder, files: Object.fromEntries(files) as Record<TableName, Output> };
}

/**
 * Reads all of `trace` and writes its tables.
 *
 * @throws DmaError ERR_DMA_OUTPUT (EIO): the folder cannot be written; ERR_DMA_TRACE_DAMAGED
 */
export async function writeParquet(trace: Trace, { folder, files }: TableOutputs): Promise<ParquetResult> {
  try {
    const events = new TableFile(files.events.part!, "events");
    const rows = new EventRows(trace);
    const recording = await readRecording(trace, (batch, row) => events.add(rows.row(batch, row)));
    events.finish();
    const counts: Record<TableName, number> = { events: events.rows, mappings: 0, requests: 0, findings: 0 };
    const others = { mappings: mappingRows, requests: requestRows, findings: findingRows } as const;
    for (const [name, rowsOf] of Object.entries(others) as [keyof typeof others, typeof mappingRows][]) {
      const file = new TableFile(files[name].part!, name);
      for (const row of rowsOf(recording)) file.add(row);
      file.finish();
      counts[name] = file.rows;
    }
    for (const name of TABLE_NAMES) files[name].finish();
    return { recording, rows: counts };
  } catch (error) {
    throw cannotWrite(`into ${folder}`, error);
  }
}
