/** The answer to a question in SQL, and what can be asked: for people, as CSV, and as data (`dmalink.query/2`, `dmalink.columns/1`). */
import type { Trace } from "../../trace/index.ts";
import { visibleInLine } from "../text/escape.ts";
import { textTable } from "../text/text-table.ts";
import { TABLE_NAMES, TABLES } from "./columns.ts";

/** What a database answered. */
export interface Answer {
  /** What each value of a row is. */
  readonly columns: readonly {
    /** As the question named it. */
    readonly name: string;
    /** As the database calls it: `UBIGINT`, `VARCHAR`, … */
    readonly type: string;
  }[];
  /** In the order of the answer, one value for each column. */
  readonly rows: readonly (readonly unknown[])[];
}

/** Addresses are unsigned in the tables, and shown in hex. */
const isAddress = (type: string): boolean => type === "UBIGINT";

function shown(value: unknown, type: string): string {
  if (value === null || value === undefined) return "";
  if (typeof value === "bigint" && isAddress(type)) return `0x${value.toString(16)}`;
  if (typeof value === "number" && !Number.isInteger(value)) return value.toFixed(3);
  return String(value);
}

/** As a table that lines up. */
export function answerText({ columns, rows }: Answer): string {
  const header = columns.map(({ name }) => visibleInLine(name));
  const lines = rows.map((row) => row.map((value, i) => visibleInLine(shown(value, columns[i]!.type))));
  return `${textTable(header, lines)}\n`;
}

/** As data; numbers that are not exact in JSON are strings. */
export function answerJson(
  traces: readonly { readonly file: string; readonly damage: Trace["damage"] }[],
  sql: string,
  { columns, rows }: Answer,
): object {
  const plain = (value: unknown, type: string): unknown => {
    if (typeof value === "bigint" && !isAddress(type))
      return value <= BigInt(Number.MAX_SAFE_INTEGER) && value >= BigInt(Number.MIN_SAFE_INTEGER)
        ? Number(value)
        : `${value}`;
    if (value === null || typeof value === "number" || typeof value === "boolean") return value;
    return shown(value, type);
  };
  const names = unique(columns.map(({ name }) => name));
  return {
    schema: "dmalink.query/2",
    sql,
    traces: traces.map(({ file, damage }) => ({ file, ...(damage && { damage }) })),
    columns: columns.map(({ type }, i) => ({ name: names[i]!, type })),
    rows: rows.map((row) => Object.fromEntries(row.map((value, i) => [names[i]!, plain(value, columns[i]!.type)]))),
  };
}

/** Names that are there twice with a number behind them, `a`, `a_1`: an object has one value of a name. */
function unique(names: readonly string[]): string[] {
  const taken = new Set(names);
  const seen = new Set<string>();
  return names.map((name) => {
    let own = name;
    for (let i = 1; seen.has(own) || (own !== name && taken.has(own)); i++) own = `${name}_${i}`;
    seen.add(own);
    return own;
  });
}

/** As CSV, with a line of names: for spreadsheets and other tools. Nulls are empty; numbers are whole. Specified by: RFC 4180, but for its line ends. */
export function answerCsv({ columns, rows }: Answer): string {
  const cell = (value: unknown, type: string): string => {
    const text = typeof value === "number" ? String(value) : shown(value, type);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const lines = [
    columns.map(({ name }) => cell(name, "VARCHAR")),
    ...rows.map((row) => row.map((value, i) => cell(value, columns[i]!.type))),
  ];
  return lines.map((line) => `${line.join(",")}\n`).join("");
}

/** The tables and their columns, for people. */
export function schemaText(): string {
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

/** The tables and their columns, as data. */
export const schemaJson = (): object => ({ schema: "dmalink.columns/1", tables: TABLES });
