/**
 * A recording as four tables: events, mappings, requests, findings. The schema of `export --parquet` and of `query`.
 *
 * Idea: the columns are data, with what each means; docs/export-and-query.md is this list in words. Addresses are unsigned
 * 64-bit numbers, exact, and so shown in hex; times are nanoseconds of the trace's own clock. Not for: drawing (html, perfetto).
 */

/** How a column is stored, in the words of Parquet and SQL. */
export type ColumnType = "uint64" | "int64" | "int32" | "string" | "boolean";

/** One column of a table. */
export interface TableColumn {
  /** As questions name it. */
  readonly name: string;
  /** Which values it has. */
  readonly type: ColumnType;
  /** A row may have none. */
  readonly nullable: boolean;
  /** In a few words, with the unit. */
  readonly meaning: string;
}

/** One cell. */
export type Value = bigint | number | string | boolean | null;

const column = (name: string, type: ColumnType, meaning: string, nullable = false): TableColumn => ({
  name,
  type,
  nullable,
  meaning,
});

/** The columns of each table, in their order. */
export const TABLES: Readonly<Record<"events" | "mappings" | "requests" | "findings", readonly TableColumn[]>> = {
  events: [
    column("time_ns", "int64", "when, on the trace's clock"),
    column("cpu", "int32", "on which CPU"),
    column("pid", "int32", "in which task; an interrupt's events bear the task that it interrupted"),
    column("task", "string", "the task's name"),
    column("system", "string", "dma, iommu, …; empty where a text trace does not say"),
    column("name", "string", "of the event"),
    column("device", "string", "the device that the event names", true),
    column("direction", "string", "bidirectional, to-device, from-device", true),
    column("iova", "uint64", "the device's address: of a mapping, or of a two-step range", true),
    column("phys", "uint64", "the memory's address", true),
    column("length", "int64", "bytes", true),
    column("unmapped_length", "int64", "bytes that an iommu:unmap took back", true),
    column("offset", "int64", "where in its two-step range, bytes", true),
    column("state", "uint64", "the kernel's pointer to a two-step range", true),
    column("attrs", "uint64", "DMA attributes, a bit each", true),
    column("fields", "string", "JSON: all fields of an event that none of the columns above says, and of lists", true),
  ],
  mappings: [
    column("id", "int64", "in the order of beginning"),
    column("device", "string", "null: no event names it", true),
    column("kind", "string", "one-shot, scatterlist, coherent, two-step, unattributed"),
    column("direction", "string", "bidirectional, to-device, from-device; null: no event says", true),
    column(
      "reached",
      "string",
      "direct, translated, or remapped (bounced, or by a translation that the trace does not show)",
    ),
    column("iova", "uint64", "the device's address"),
    column("length", "int64", "bytes"),
    column("phys", "uint64", "the first byte of memory", true),
    column("segments", "int64", "pieces of memory"),
    column("start_ns", "int64", "null: before the recording", true),
    column("end_ns", "int64", "null: live at its end", true),
    column("lifetime_ns", "int64", "end less start, where both were seen", true),
    column("cpu", "int32", "where it began"),
    column("pid", "int32", "who began it"),
    column("task", "string", "and its name"),
    column("caller", "string", "in which code: function ← caller ← its caller; null: no stack was recorded", true),
  ],
  requests: [
    column("id", "int64", "in the order of beginning"),
    column("device", "string", "null: ambiguous, no event names it", true),
    column("kind", "string", "one-shot, scatterlist, coherent, two-step, unattributed"),
    column("direction", "string", "bidirectional, to-device, from-device; null: no event says", true),
    column("segments", "int64", "pieces of memory that were mapped together"),
    column("runs", "int64", "of those, as many as are left when neighbours in memory are joined"),
    column("length", "int64", "bytes"),
    column("smallest_segment", "int64", "bytes"),
    column("largest_segment", "int64", "bytes"),
    column("iova", "uint64", "the device's address of the first segment"),
    column("start_ns", "int64", "when its first page was mapped; null: before the recording", true),
    column("end_ns", "int64", "null: live at the end, or never unmapped", true),
    column("translated", "boolean", "an IOMMU translated it"),
  ],
  findings: [
    column("rule", "string", "which rule found it"),
    column("severity", "string", "error, warning, advice"),
    column("confidence", "string", "certain, likely, possible"),
    column("device", "string", "where it is about one", true),
    column("iova", "uint64", "the device's address", true),
    column("length", "int64", "bytes", true),
    column("time_ns", "int64", "when"),
    column("message", "string", "what happened"),
    column("advice", "string", "what to do"),
    column("evidence", "string", "JSON: the events before and after"),
    column("caller", "string", "the code that it comes from; null: no stack was recorded", true),
  ],
};

/** A name of a table. */
export type TableName = keyof typeof TABLES;
/** The names of the tables. */
export const TABLE_NAMES: readonly TableName[] = Object.keys(TABLES) as TableName[];
