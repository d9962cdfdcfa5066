/**
 * What the tables of a recording are, and how an answer about them looks. Light: reading a recording is not in it.
 *
 * Not for: making tables (parquet.ts, by the face of report).
 */
export { type Answer, answerCsv, answerJson, answerText, schemaJson, schemaText } from "./answer.ts";
export { type ColumnType, TABLE_NAMES, TABLES, type TableColumn, type TableName, type Value } from "./columns.ts";
