/**
 * The built-in query: filters over all mappings of a trace, and sums by one column.
 *
 * Idea: a few words with `=`, `>`, `<` between a column and a value, all of which must hold: `device=0000:00:04.0 length>65536 live=yes`.
 * Not for: what needs joins or sums over several columns; `dmalink query` has SQL for that.
 */
import type { Mappings, Recording } from "../../../report/index.ts";

/** Columns that can be asked for. */
export const COLUMNS = [
  "device",
  "kind",
  "direction",
  "task",
  "pid",
  "cpu",
  "address",
  "phys",
  "length",
  "segments",
  "life",
  "start",
  "live",
  "code",
] as const;
type ColumnName = (typeof COLUMNS)[number];

const OPERATORS = ["!=", ">=", "<=", "=", ">", "<", "~"] as const;
type Operator = (typeof OPERATORS)[number];

interface Term {
  readonly column: ColumnName;
  readonly operator: Operator;
  readonly text: string;
  readonly number: number;
}

/** Units of a value, in bytes and in nanoseconds. */
const UNITS: Readonly<Record<string, number>> = {
  k: 1024,
  m: 1024 ** 2,
  g: 1024 ** 3,
  ns: 1,
  us: 1e3,
  µs: 1e3,
  ms: 1e6,
  s: 1e9,
};

/** @throws Error: a word that is no condition, in a sentence */
function parseQuery(text: string): readonly Term[] {
  const words = text
    .trim()
    .split(/\s+/)
    .filter((word) => word !== "");
  return words.map((word) => {
    const match = /^([a-z]+)(!=|>=|<=|=|>|<|~)(.*)$/i.exec(word);
    const column = COLUMNS.find((name) => name === match?.[1]?.toLowerCase());
    if (!match || !column)
      throw new Error(
        `"${word}" is no condition: a column (${COLUMNS.join(", ")}), one of ${OPERATORS.join(" ")}, and a value`,
      );
    const value = match[3]!;
    const number = /^(0x[0-9a-f]+|[0-9.]+)([a-zµ]*)$/i.exec(value);
    const unit = number?.[2]?.toLowerCase() ?? "";
    return {
      column,
      operator: match[2] as Operator,
      text: value.toLowerCase(),
      number: number ? Number(number[1]) * (unit === "" ? 1 : (UNITS[unit] ?? Number.NaN)) : Number.NaN,
    };
  });
}

/** Reads columns of one recording; values of text are in lower case. */
class MappingFilter {
  readonly #recording: Recording;
  readonly #mappings: Mappings;

  constructor(recording: Recording) {
    this.#recording = recording;
    this.#mappings = recording.mappings;
  }

  /** The value of a column. */
  value(row: number, column: ColumnName): string | number {
    const at = this.#mappings;
    const { trace, result, firstNs } = this.#recording;
    switch (column) {
      case "device":
        return at.deviceOf(row) ?? "unknown";
      case "kind":
        return at.kindOf(row);
      case "direction":
        return at.directionOf(row) ?? "";
      case "task":
        return trace.strings[at.task[row]!] ?? "";
      case "code":
        return at.site[row] === 0 ? "" : (result.sites[at.site[row]!] ?? "");
      case "live":
        return at.endNs[row]! < 0 ? "yes" : "no";
      case "life":
        return at.endNs[row]! < 0 || at.startNs[row]! < 0 ? Number.NaN : at.endNs[row]! - at.startNs[row]!;
      case "start":
        return at.startNs[row]! < 0 ? Number.NaN : at.startNs[row]! - firstNs;
      case "address":
        return at.iova[row]!;
      default:
        return at[column][row]!;
    }
  }

  /** Whether every condition holds. An address holds where it lies in the mapping. */
  holds(row: number, terms: readonly Term[]): boolean {
    return terms.every((term) => this.#holds(row, term));
  }

  #holds(row: number, { column, operator, text, number }: Term): boolean {
    const value = this.value(row, column);
    if (typeof value === "string") {
      const lower = value.toLowerCase();
      if (operator === "~") return lower.includes(text);
      return operator === "!=" ? lower !== text : operator === "=" && lower === text;
    }
    if (column === "address" && (operator === "=" || operator === "!=")) {
      const within = number >= value && number < value + Math.max(this.#mappings.length[row]!, 1);
      return within === (operator === "=");
    }
    switch (operator) {
      case ">":
        return value > number;
      case "<":
        return value < number;
      case ">=":
        return value >= number;
      case "<=":
        return value <= number;
      case "!=":
        return value !== number;
      default:
        return value === number;
    }
  }
}

/** A group of an answer: how many mappings, and their bytes together. */
export interface Group {
  readonly value: string;
  count: number;
  bytes: number;
}

/** What a query finds. */
interface Found {
  readonly rows: readonly number[];
  readonly total: number;
  readonly bytes: number;
  /** By the column that was asked for, largest first; at most {@link MOST_GROUPS}. */
  readonly groups: readonly Group[];
}

const MOST_GROUPS = 200;

/** The mappings of which `query` holds, at most `most` of them; and sums by `group`. @throws Error as of {@link parseQuery} */
export function findMappings(recording: Recording, query: string, group: string, most: number): Found {
  const terms = parseQuery(query);
  const filter = new MappingFilter(recording);
  const by = COLUMNS.find((name) => name === group);
  const rows: number[] = [];
  const groups = new Map<string, Group>();
  let [total, bytes] = [0, 0];
  const { mappings } = recording;
  for (let row = 0; row < mappings.count; row++) {
    if (!filter.holds(row, terms)) continue;
    total++;
    bytes += mappings.length[row]!;
    if (rows.length < most) rows.push(row);
    if (by === undefined) continue;
    const value = String(filter.value(row, by));
    let sum = groups.get(value);
    if (!sum) {
      sum = { value, count: 0, bytes: 0 };
      groups.set(value, sum);
    }
    sum.count++;
    sum.bytes += mappings.length[row]!;
  }
  return { rows, total, bytes, groups: [...groups.values()].sort((a, b) => b.count - a.count).slice(0, MOST_GROUPS) };
}
