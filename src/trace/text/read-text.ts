/** For tests: a text as the rows that are read from it, every value written out. */
import { fileOfBytes } from "../cursor.ts";
import { type EventBatch, fieldBigint, fieldText, type Trace } from "../events.ts";
import { type OpenOptions, openTrace } from "../open.ts";

/** One event, everything in it as plain values. */
export interface Row {
  /** `SYSTEM:NAME`, or the name alone. */
  readonly event: string;
  readonly buffer: string;
  readonly task: string;
  readonly pid: number;
  readonly cpu: number;
  readonly ns: bigint;
  readonly chain: readonly string[];
  readonly values: Readonly<Record<string, unknown>>;
}

/** Opens a text as a trace. */
export const openAs = (text: string | Uint8Array, options?: OpenOptions): Promise<Trace> =>
  openTrace(fileOfBytes("text", typeof text === "string" ? new TextEncoder().encode(text) : text), options);

/** A value of an event: text, number (signed) or bigint, or a list. */
function fieldValue(trace: Trace, batch: EventBatch, row: number, field: number): unknown {
  const { kind } = trace.types[batch.type[row]!]!.fields[field]!;
  if (kind === "string") return fieldText(trace, batch, row, field);
  if (kind === "signed") return Number(BigInt.asIntN(64, fieldBigint(batch, row, field)));
  if (kind === "unsigned") return fieldBigint(batch, row, field);
  const at = batch.start[row]! + field * 2;
  const items = { words: batch.words, start: [batch.words[at]!] } as unknown as EventBatch;
  return Array.from({ length: batch.words[at + 1]! }, (_, item) => fieldBigint(items, 0, item));
}

/** All events of a trace. */
export async function rowsOf(trace: Trace): Promise<Row[]> {
  const rows: Row[] = [];
  for await (const batch of trace.batches())
    for (let row = 0; row < batch.count; row++) {
      const type = trace.types[batch.type[row]!]!;
      rows.push({
        event: type.system === "" ? type.name : `${type.system}:${type.name}`,
        buffer: trace.buffers[batch.buffer[row]!]!,
        task: trace.strings[batch.task[row]!]!,
        pid: batch.pid[row]!,
        cpu: batch.cpu[row]!,
        ns: trace.timeBase + BigInt(batch.timeNs[row]!),
        chain: trace.chains[batch.chain[row]!]!,
        values: Object.fromEntries(type.fields.map(({ name }, field) => [name, fieldValue(trace, batch, row, field)])),
      });
    }
  return rows;
}
