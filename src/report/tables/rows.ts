/**
 * The rows of a recording's tables: every event, mapping, request and finding as a list of values.
 *
 * Idea: a value an event does not have is null; addresses are unsigned 64-bit numbers, exact; times are nanoseconds of the
 * trace's own clock, so that tables can be joined by time. Specified by: columns.ts.
 */
import { type Finding, isSelective, type Selection, Selector } from "../../analysis/index.ts";
import {
  type EventBatch,
  fieldBigint,
  fieldNumber,
  fieldText,
  type KnownEvent,
  known,
  type Role,
  type Trace,
} from "../../trace/index.ts";
import { directionWord, KINDS, REACHED, type Recording } from "../recording.ts";
import type { ColumnChunk } from "./column-chunk.ts";
import { TABLES, type Value } from "./columns.ts";

/** Roles of event fields, by the column they fill. */
const ROLE_OF: Readonly<Record<string, readonly Role[]>> = {
  iova: ["iova", "dmaAddr"],
  phys: ["physAddr"],
  length: ["size"],
  unmapped_length: ["unmappedSize"],
  offset: ["offset"],
  state: ["state"],
  attrs: ["attrs"],
};
const IS_ADDRESS: readonly boolean[] = Object.keys(ROLE_OF).map(
  (name) => TABLES.events.find((column) => column.name === name)!.type === "uint64",
);
/** A size is a signed number, so that it can be summed and subtracted. */
const LARGEST_SIZE = 0x7fff_ffff_ffff_ffffn;
/** The first column of a number, behind time, place and names. */
const FIRST_NUMBER = 8;
/** The number in REACHED of what an IOMMU translated. */
const TRANSLATED = REACHED.indexOf("translated");
const LIST_ROLES: readonly Role[] = ["physAddrs", "dmaAddrs", "lengths"];

/** The events of a trace as rows of the table `events`. */
export class EventRows {
  readonly #trace: Trace;
  readonly #plans: EventPlan[] = [];
  readonly #selector: Selector | undefined;
  /** -1: not known yet. */
  #baseNs = -1;

  /** `selection`: an event that names no device is of none, and so of every one. */
  constructor(trace: Trace, selection?: Selection) {
    this.#trace = trace;
    this.#selector = selection && isSelective(selection) ? new Selector(selection) : undefined;
  }

  /** It is one of those that are asked for. */
  has(batch: EventBatch, row: number): boolean {
    const selector = this.#selector;
    if (!selector) return true;
    const trace = this.#trace;
    const { device } = this.#plan(batch.type[row]!);
    if (device >= 0 && !selector.hasDevice(fieldText(trace, batch, row, device))) return false;
    return selector.hasPlace(trace.strings[batch.task[row]!] ?? "", batch.pid[row]!, batch.cpu[row]!);
  }

  /** Puts the event into `columns`, those of the table in their order. */
  fill(batch: EventBatch, row: number, columns: readonly ColumnChunk[]): void {
    const trace = this.#trace;
    const { words } = batch;
    const { system, name, device, direction, numbers, unsaid } = this.#plan(batch.type[row]!);
    const start = batch.start[row]!;
    if (this.#baseNs < 0) this.#baseNs = Number(trace.timeBase); // known once something was read
    const timeNs = this.#baseNs + batch.timeNs[row]!;
    if (timeNs <= Number.MAX_SAFE_INTEGER) columns[0]!.number(timeNs);
    else columns[0]!.bigint(trace.timeBase + BigInt(batch.timeNs[row]!));
    columns[1]!.number(batch.cpu[row]!);
    columns[2]!.number(batch.pid[row]!);
    columns[3]!.text(trace.strings[batch.task[row]!] ?? "");
    columns[4]!.text(system);
    columns[5]!.text(name);
    if (device < 0) columns[6]!.none();
    else columns[6]!.text(fieldText(trace, batch, row, device));
    const word = direction < 0 ? undefined : directionWord(fieldNumber(batch, row, direction));
    if (word === undefined) columns[7]!.none();
    else columns[7]!.text(word);
    for (let i = 0; i < numbers.length; i++) {
      const column = columns[FIRST_NUMBER + i]!;
      const field = numbers[i]!;
      if (field < 0) {
        column.none();
        continue;
      }
      const [low, high] = [words[start + field * 2]!, words[start + field * 2 + 1]!];
      if (IS_ADDRESS[i] || high < 2 ** 31) column.halves(low, high);
      else column.halves(0xffff_ffff, 0x7fff_ffff); // the largest size that has a sign
    }
    if (unsaid.length === 0) columns[FIRST_NUMBER + numbers.length]!.none();
    else
      columns[FIRST_NUMBER + numbers.length]!.text(
        JSON.stringify(Object.fromEntries(unsaid.map((field) => this.#field(batch, row, field)))),
      );
  }

  #plan(typeId: number): EventPlan {
    while (typeId >= this.#plans.length) this.#plans.push(planOf(this.#trace, this.#plans.length));
    return this.#plans[typeId]!;
  }

  #field(batch: EventBatch, row: number, field: number): [string, unknown] {
    const { name, kind } = this.#trace.types[batch.type[row]!]!.fields[field]!;
    if (kind === "string") return [name, fieldText(this.#trace, batch, row, field)];
    if (kind === "signed") return [name, Number(BigInt.asIntN(64, fieldBigint(batch, row, field)))];
    if (kind === "unsigned") return [name, plain(fieldBigint(batch, row, field))];
    const at = batch.start[row]! + field * 2;
    const items = { words: batch.words, start: [batch.words[at]!] } as unknown as EventBatch;
    return [name, Array.from({ length: batch.words[at + 1]! }, (_, item) => plain(fieldBigint(items, 0, item)))];
  }
}

/** JSON has no 64-bit numbers: what is not exact in a double is a hex string. */
const plain = (value: bigint): number | string =>
  value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : `0x${value.toString(16)}`;

/** Which field fills which column, for one type of event; -1: none. */
interface EventPlan {
  readonly system: string;
  readonly name: string;
  readonly device: number;
  readonly direction: number;
  readonly numbers: readonly number[];
  readonly unsaid: readonly number[];
}

function planOf(trace: Trace, typeId: number): EventPlan {
  const type = trace.types[typeId]!;
  const fields: KnownEvent["fields"] = known(type)?.fields ?? {};
  const numbers = Object.values(ROLE_OF).map(
    (roles) => roles.map((role) => fields[role]).find((at) => at !== undefined) ?? -1,
  );
  const said = new Set([fields.device, fields.direction, fields.end, fields.ok, ...numbers]);
  const isKnown = known(type) !== undefined;
  const lists = new Set(LIST_ROLES.map((role) => fields[role]));
  const unsaid = type.fields.flatMap((_, at) => (said.has(at) || (isKnown && !lists.has(at)) ? [] : [at]));
  return {
    system: type.system,
    name: type.name,
    device: fields.device ?? -1,
    direction: fields.direction ?? -1,
    numbers,
    unsaid,
  };
}

/** Every mapping, in the order of their ends. */
export function* mappingRows({ mappings, requests, trace, result }: Recording): Generator<Value[]> {
  const time = clockOf(trace);
  const { id } = requests.columns; // in the order of beginning: known to those
  for (let row = 0; row < mappings.count; row++) {
    const start = mappings.startNs[row]!;
    const end = mappings.endNs[row]!;
    yield [
      id[row]!,
      mappings.deviceOf(row) ?? null,
      KINDS[mappings.kind[row]!]!,
      mappings.directionOf(row) ?? null,
      REACHED[mappings.reached[row]!]!,
      unsigned(mappings.iova[row]!),
      size(mappings.length[row]!),
      mappings.phys[row]! < 0 ? null : unsigned(mappings.phys[row]!),
      mappings.segments[row]!,
      start < 0 ? null : time(start),
      end < 0 ? null : time(end),
      start < 0 || end < start ? null : Math.round(end - start),
      mappings.cpu[row]!,
      mappings.pid[row]!,
      trace.strings[mappings.task[row]!] ?? "",
      mappings.site[row] === 0 ? null : (result.sites[mappings.site[row]!] ?? null),
    ];
  }
}

/** Every request, in the order of beginning. */
export function* requestRows({ requests, mappings, trace }: Recording): Generator<Value[]> {
  const time = clockOf(trace);
  for (let id = 0; id < requests.count; id++) {
    const row = requests.rowOf(id);
    // Runs are pieces of memory when neighbours are joined.
    let [smallest, largest, runs, end] = [Number.POSITIVE_INFINITY, 0, 0, Number.NaN];
    mappings.eachSegment(row, (_iova, phys, length) => {
      smallest = Math.min(smallest, length);
      largest = Math.max(largest, length);
      if (phys !== end) runs++;
      end = phys + length;
    });
    const [startNs, endNs] = [mappings.startNs[row]!, mappings.endNs[row]!];
    yield [
      id,
      mappings.deviceOf(row) ?? null,
      mappings.kindOf(row),
      mappings.directionOf(row) ?? null,
      mappings.segments[row]!,
      runs,
      size(mappings.length[row]!),
      size(runs === 0 ? 0 : smallest),
      size(largest),
      unsigned(mappings.iova[row]!),
      startNs < 0 ? null : time(startNs),
      endNs < 0 ? null : time(endNs),
      mappings.reached[row] === TRANSLATED,
    ];
  }
}

/** Every finding, errors first. */
export function* findingRows({ result, trace }: Recording): Generator<Value[]> {
  const time = clockOf(trace);
  for (const finding of result.findings as readonly Finding[])
    yield [
      finding.rule,
      finding.severity,
      finding.confidence,
      finding.device ?? null,
      finding.iova === undefined ? null : unsigned(finding.iova),
      finding.length === undefined ? null : size(finding.length),
      time(finding.timeNs),
      finding.message,
      finding.advice,
      JSON.stringify(finding.evidence.map((evidence) => ({ ...evidence, timeNs: Number(time(evidence.timeNs)) }))),
      finding.caller ?? null,
    ];
}

/** Times on the trace's own clock; exact ones are plain numbers, which cost less. */
const clockOf = ({ timeBase }: Trace): ((ns: number) => number | bigint) => {
  const base = Number(timeBase);
  return (ns) => {
    const since = Math.round(Math.max(ns, 0));
    return base + since <= Number.MAX_SAFE_INTEGER ? base + since : timeBase + BigInt(since);
  };
};

/** Numbers above 2^64 - 1 do not exist; all ones rounds up to it. */
const unsigned = (value: number): number | bigint => {
  if (value >= 0 && value <= Number.MAX_SAFE_INTEGER) return Math.round(value);
  const whole = BigInt(Math.max(0, Math.round(value)));
  return whole > 0xffff_ffff_ffff_ffffn ? 0xffff_ffff_ffff_ffffn : whole;
};

const size = (value: number): number | bigint => {
  if (value >= 0 && value <= Number.MAX_SAFE_INTEGER) return Math.round(value);
  const whole = BigInt(Math.max(0, Math.round(value)));
  return whole > LARGEST_SIZE ? LARGEST_SIZE : whole;
};
