/**
 * The tables of a recording as files of a folder, one each.
 *
 * Promises: a folder that holds all four files, whole, or an error.
 */
import { closeSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { fileWriter } from "hyparquet-writer";
import { DmaError } from "../../../base/index.ts";
import { type ParquetResult, TABLE_NAMES, type TableName, writeParquet } from "../../../report/index.ts";
import type { Trace } from "../../../trace/index.ts";
import { cannotWrite, type Output, type Outputs, openPart } from "./output.ts";
import { STANDARD_INPUT } from "./standard-input.ts";

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
export async function writeTables(
  trace: Trace,
  { folder, files }: TableOutputs,
  options: Parameters<typeof writeParquet>[2] = {},
): Promise<ParquetResult> {
  try {
    for (const name of TABLE_NAMES) closeSync(openPart(files[name])); // a new file of ours, before it is written by its name
    const writers = TABLE_NAMES.map((name) => [name, () => fileWriter(files[name].part!)] as const);
    const result = await writeParquet(
      trace,
      Object.fromEntries(writers) as Parameters<typeof writeParquet>[1],
      options,
    );
    for (const name of TABLE_NAMES) files[name].finish();
    return result;
  } catch (error) {
    throw cannotWrite(`into ${folder}`, error);
  }
}
