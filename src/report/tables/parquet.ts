/**
 * The tables of a recording as Parquet files, one each: for DuckDB, pandas, Polars, Spark.
 *
 * Idea: rows are gathered to groups in columns (column-chunk.ts) and written at once, so that memory does not follow the trace's length.
 * Where the bytes go is the caller's: a file, or memory. Specified by: the Apache Parquet format.
 */
import { ParquetWriter, type SchemaElement, type Writer } from "hyparquet-writer";
import type { Trace } from "../../trace/index.ts";
import { type Recording, type RecordingOptions, readRecording } from "../recording.ts";
import { ColumnChunk, ROWS_PER_GROUP } from "./column-chunk.ts";
import { TABLE_NAMES, TABLES, type TableColumn, type TableName, type Value } from "./columns.ts";
import { EventRows, findingRows, mappingRows, requestRows } from "./rows.ts";

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
  /** Whoever adds a row fills each of them. */
  readonly columns: readonly ColumnChunk[];
  readonly #writer: ParquetWriter;
  #filled = 0;

  constructor(writer: Writer, name: TableName) {
    this.columns = TABLES[name].map((column) => new ColumnChunk(column));
    this.#writer = new ParquetWriter({
      writer,
      schema: schemaOf(TABLES[name]),
      createdBy: "dmalink",
      kvMetadata: [{ key: "dmalink.table", value: `${name}/1` }],
    });
  }

  /** A row is in {@link columns}. */
  added(): void {
    this.rows++;
    if (++this.#filled === ROWS_PER_GROUP) this.#flush();
  }

  add(row: readonly Value[]): void {
    for (let i = 0; i < row.length; i++) put(this.columns[i]!, row[i]!);
    this.added();
  }

  finish(): void {
    if (this.#filled > 0) this.#flush();
    this.#writer.finish();
  }

  #flush(): void {
    const { writer, row_groups } = this.#writer;
    const start = writer.offset;
    const columns = this.columns.map((column) => column.write(writer));
    row_groups.push({
      columns,
      total_byte_size: columns.reduce((sum, { meta_data }) => sum + meta_data.total_uncompressed_size, 0n),
      num_rows: BigInt(this.#filled),
      total_compressed_size: BigInt(writer.offset - start),
    });
    this.#writer.num_rows += BigInt(this.#filled);
    this.#filled = 0;
    writer.flush?.();
  }
}

/** Puts a value where its kind goes. */
function put(column: ColumnChunk, value: Value): void {
  if (value === null) column.none();
  else if (typeof value === "number") column.number(value);
  else if (typeof value === "string") column.text(value);
  else if (typeof value === "boolean") column.boolean(value);
  else column.bigint(value);
}

/** A recording whose tables are written. */
export interface ParquetResult {
  /** What was written. */
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
      if (!rows.has(batch, row)) return;
      rows.fill(batch, row, events.columns);
      events.added();
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
