/**
 * Recorded traces of a real kernel: every file gives the events that its recording counted, and the binary file and its
 * printed form give the same columns.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import {
  type EventBatch,
  type FileInput,
  fieldBigint,
  fieldText,
  known,
  openTrace,
  type StreamInput,
  type Trace,
} from "../../src/trace/index.ts";
import { some } from "../effort.ts";

const FOLDER = join(import.meta.dirname, "traces");
const files = readdirSync(FOLDER).filter((name) => /\.(dat|report\.txt|ftrace\.txt)\.gz$/.test(name));
const stemOf = (name: string): string => name.replace(/\.(dat|report\.txt|ftrace\.txt)\.gz$/, "");

function fileOf(name: string): FileInput {
  const bytes = gunzipSync(readFileSync(join(FOLDER, name)));
  return { name, size: bytes.length, read: async (offset, length) => bytes.subarray(offset, offset + length) };
}

const expected = (name: string): Record<string, number> =>
  JSON.parse(readFileSync(join(FOLDER, `${stemOf(name)}.meta.json`), "utf8")).events;

async function countsOf(trace: Trace): Promise<Record<string, number>> {
  const counts: Record<string, number> = {};
  for await (const batch of trace.batches())
    for (let row = 0; row < batch.count; row++) {
      const { name } = trace.types[batch.type[row]!]!;
      counts[name] = (counts[name] ?? 0) + 1;
    }
  return counts;
}

/** Allocation flags are a number in the binary event and kernel-dependent names in print: no role uses them. */
const PRINTED_BY_NAME = new Set(["dma_alloc.flags", "dma_alloc_pages.flags", "dma_alloc_sgt.flags"]);

function fieldValue(trace: Trace, batch: EventBatch, row: number, field: number): unknown {
  const { kind } = trace.types[batch.type[row]!]!.fields[field]!;
  if (kind === "string") return fieldText(trace, batch, row, field);
  if (kind !== "array") return fieldBigint(batch, row, field);
  const at = batch.start[row]! + field * 2;
  const items = { words: batch.words, start: [batch.words[at]!] } as unknown as EventBatch;
  return Array.from({ length: batch.words[at + 1]! }, (_, item) => fieldBigint(items, 0, item));
}

/** The event as one line of text, without its time; events outside the catalogue by name only. */
function shown(trace: Trace, batch: EventBatch, row: number): string {
  const type = trace.types[batch.type[row]!]!;
  const where = `${trace.strings[batch.task[row]!]}-${batch.pid[row]} [${batch.cpu[row]}] ${type.name}`;
  if (!known(type)) return where;
  const fields = type.fields.map(({ name, kind }, field) =>
    PRINTED_BY_NAME.has(`${type.name}.${name}`) ? name : `${name}:${kind}=${fieldValue(trace, batch, row, field)}`,
  );
  return `${where} ${fields.join(" ")}`;
}

async function linesOf(trace: Trace): Promise<{ line: string; time: bigint }[]> {
  const lines: { line: string; time: bigint }[] = [];
  for await (const batch of trace.batches())
    for (let row = 0; row < batch.count; row++)
      lines.push({ line: shown(trace, batch, row), time: trace.timeBase + BigInt(batch.timeNs[row]!) });
  return lines;
}

describe("a recorded trace", () => {
  test.each(files)("%s holds exactly the events that were counted", async (name) => {
    const trace = await openTrace(fileOf(name));
    expect(await countsOf(trace)).toEqual(expected(name));
    expect(trace.lost).toBe(0);
    expect(trace.damage).toBeUndefined();
    expect(trace.cpus).toBe(2);
  });

  test.each(some(files, 3))("%s is in time order", async (name) => {
    const trace = await openTrace(fileOf(name), { batchSize: 1000 });
    let last = Number.NEGATIVE_INFINITY;
    for await (const batch of trace.batches())
      for (const time of batch.timeNs.subarray(0, batch.count)) {
        expect(time >= last).toBe(true);
        last = time;
      }
  });

  test("says what wrote it", async () => {
    const formats = new Map<string, string>();
    for (const name of files) {
      const trace = await openTrace(fileOf(name));
      formats.set(name, trace.format);
      if (name.endsWith(".dat.gz")) {
        expect(trace.clock).toBe("local");
        expect(trace.system).toMatch(/^Linux .* 7\.2\.13.* x86_64$/);
      }
    }
    for (const [name, format] of formats)
      if (name.includes(".report.")) expect(format).toBe("trace-cmd report");
      else if (name.includes(".ftrace.")) expect(format).toBe("ftrace text");
      else
        expect(format).toBe(/mix7030|e1000e/.test(name) && name.startsWith("strict") ? "trace.dat v6" : "trace.dat v7");
  });
});

describe("the binary file and its report", () => {
  const both = files.filter((name) => name.endsWith(".dat.gz"));
  test.each(some(both, 2))("%s: the same catalogued events, field by field, times to the microsecond", async (name) => {
    const binary = await linesOf(await openTrace(fileOf(name)));
    const text = await linesOf(await openTrace(fileOf(name.replace(".dat.", ".report.txt."))));
    expect(text.map(({ line }) => line)).toEqual(binary.map(({ line }) => line));
    const apart = binary.map(({ time }, i) => Number(time - text[i]!.time)).filter((ns) => Math.abs(ns) > 500);
    expect(apart).toEqual([]);
  });
});

describe("a text trace on a stream", () => {
  test.each([1, 7, 4096])("is the same whatever the chunks: %d bytes", async (size) => {
    const file = fileOf("strict-reload-nvme.report.txt.gz");
    const bytes = await file.read(0, file.size);
    const input: StreamInput = {
      name: "pipe",
      stream: (async function* () {
        for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
      })(),
    };
    expect(await linesOf(await openTrace(input))).toEqual(await linesOf(await openTrace(file)));
  });
});
