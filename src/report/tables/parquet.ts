/**
 * The tables of a recording as Parquet files, one each: for DuckDB, pandas, Polars, Spark.
 *
 * Idea: rows are gathered to groups of 50,000 and written at once, so that memory does not follow the trace's length.
 * Where the bytes go is the caller's: a file, or memory. Specified by: the Apache Parquet format.
 */
import { type ColumnSource, ParquetWriter, type SchemaElement, type Writer } from "hyparquet-writer";
import type { Trace } from "../../trace/index.ts";
import { type Recording, type RecordingOptions, readRecording } from "../recording.ts";
import { TABLE_NAMES, TABLES, type TableColumn, type TableName, type Value } from "./columns.ts";
import { EventRows, findingRows, mappingRows, requestRows } from "./rows.ts";

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

  constructor(writer: Writer, name: TableName) {
    this.#columns = TABLES[name];
    this.#writer = new ParquetWriter({
      writer,
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

/** A recording whose tables are written. */
export interface ParquetResult {
  readonly recording: Recording;
  /** Rows of each table. */
  readonly rows: Readonly<Record<TableName, number>>;
}

/**
 * Reads all of `trace` and writes its tables, each to its own of `writers`.
 *
 * @throws DmaError ERR_DMA_TRACE_DAMAGED; whatever a writer throws
 */
export async function writeParquet(
  trace: Trace,
  writers: Readonly<Record<TableName, () => Writer>>,
  options: Omit<RecordingOptions, "visit"> = {},
): Promise<ParquetResult> {
  const events = new TableFile(writers.events(), "events");
  const rows = new EventRows(trace, options.selection);
  const recording = await readRecording(trace, {
    ...options,
    visit(batch, row) {
      if (rows.has(batch, row)) events.add(rows.row(batch, row));
    },
  });
  events.finish();
  const counts: Record<TableName, number> = { events: events.rows, mappings: 0, requests: 0, findings: 0 };
  const others = { mappings: mappingRows, requests: requestRows, findings: findingRows } as const;
  for (const name of TABLE_NAMES) {
    if (name === "events") continue;
    const file = new TableFile(writers[name](), name);
    for (const row of others[name](recording)) file.add(row);
    file.finish();
    counts[name] = file.rows;
  }
  return { recording, rows: counts };
}
