/**
 * The rows of a recording's tables: every event, mapping, request and finding as a list of values.
 *
 * Idea: a value an event does not have is null; addresses are unsigned 64-bit numbers, exact; times are nanoseconds of the
 * trace's own clock, so that tables can be joined by time. Specified by: columns.ts.
 */
import { type Finding, isSelective, type Request, type Selection, Selector } from "../../analysis/index.ts";
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
const LIST_ROLES: readonly Role[] = ["physAddrs", "dmaAddrs", "lengths"];

/** The events of a trace as rows of the table `events`. */
export class EventRows {
  readonly #trace: Trace;
  readonly #plans: EventPlan[] = [];
  readonly #selector: Selector | undefined;

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

  row(batch: EventBatch, row: number): Value[] {
    const trace = this.#trace;
    const { system, name, device, direction, numbers, unsaid } = this.#plan(batch.type[row]!);
    return [
      trace.timeBase + BigInt(batch.timeNs[row]!),
      batch.cpu[row]!,
      batch.pid[row]!,
      trace.strings[batch.task[row]!] ?? "",
      system,
      name,
      device < 0 ? null : fieldText(trace, batch, row, device),
      direction < 0 ? null : (directionWord(fieldNumber(batch, row, direction)) ?? null),
      ...numbers.map((field, i) => {
        if (field < 0) return null;
        const value = fieldBigint(batch, row, field);
        return IS_ADDRESS[i] || value <= LARGEST_SIZE ? value : LARGEST_SIZE;
      }),
      unsaid.length === 0
        ? null
        : JSON.stringify(Object.fromEntries(unsaid.map((field) => this.#field(batch, row, field)))),
    ];
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
export function* mappingRows({ mappings, trace }: Recording): Generator<Value[]> {
  const time = clockOf(trace);
  for (let row = 0; row < mappings.count; row++) {
    const start = mappings.startNs[row]!;
    const end = mappings.endNs[row]!;
    yield [
      BigInt(mappings.id[row]!),
      mappings.deviceOf(row) ?? null,
      KINDS[mappings.kind[row]!]!,
      mappings.directionOf(row) ?? null,
      REACHED[mappings.reached[row]!]!,
      unsigned(mappings.iova[row]!),
      size(mappings.length[row]!),
      mappings.phys[row]! < 0 ? null : unsigned(mappings.phys[row]!),
      BigInt(mappings.segments[row]!),
      start < 0 ? null : time(start),
      end < 0 ? null : time(end),
      start < 0 || end < 0 ? null : BigInt(Math.round(end - start)),
      mappings.cpu[row]!,
      mappings.pid[row]!,
      trace.strings[mappings.task[row]!] ?? "",
    ];
  }
}

/** Every request, in the order of beginning. */
export function* requestRows({ requests, mappings, trace }: Recording): Generator<Value[]> {
  const time = clockOf(trace);
  for (const request of requests) {
    const lengths = request.segments.map(({ length }) => length);
    const row = requests.rowOf(request.id);
    yield [
      BigInt(request.id),
      request.device ?? null,
      request.kind,
      request.direction ?? null,
      BigInt(mappings.segments[row]!),
      BigInt(runsOf(request)),
      size(request.length),
      size(lengths.reduce((least, length) => Math.min(least, length), lengths[0] ?? 0)),
      size(lengths.reduce((most, length) => Math.max(most, length), 0)),
      unsigned(mappings.iova[row]!),
      request.startNs < 0 ? null : time(request.startNs),
      request.endNs === undefined ? null : time(request.endNs),
      request.translated,
    ];
  }
}

/** Pieces of memory when neighbours are joined. */
const runsOf = ({ segments }: Request): number =>
  segments.filter(({ phys }, i) => i === 0 || segments[i - 1]!.phys + segments[i - 1]!.length !== phys).length;

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
    ];
}

const clockOf =
  ({ timeBase }: Trace) =>
  (ns: number): bigint =>
    timeBase + BigInt(Math.round(Math.max(ns, 0)));

/** Numbers above 2^64 - 1 do not exist; all ones rounds up to it. */
const unsigned = (value: number): bigint => {
  const whole = BigInt(Math.max(0, Math.round(value)));
  return whole > 0xffff_ffff_ffff_ffffn ? 0xffff_ffff_ffff_ffffn : whole;
};

const size = (value: number): bigint => {
  const whole = BigInt(Math.max(0, Math.round(value)));
  return whole > LARGEST_SIZE ? LARGEST_SIZE : whole;
};
