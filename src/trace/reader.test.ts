/** The binary reader on written files: what no recording has, judged by the values that were written. */
import { deflateSync } from "node:zlib";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { fileOfBytes } from "./cursor.ts";
import {
  type EventBatch,
  fieldBigint,
  fieldNumber,
  fieldSigned,
  fieldText,
  LOST_EVENTS,
  type Trace,
} from "./events.ts";
import { type OpenOptions, openTrace } from "./open.ts";
import { SAMPLE_FORMATS } from "./sample-formats.ts";
import { DatWriter, type DatWriterOptions } from "./write-dat.ts";

interface Row {
  readonly name: string;
  readonly cpu: number;
  readonly pid: number;
  readonly task: string;
  readonly buffer: string;
  readonly time: bigint;
  readonly values: Record<string, unknown>;
}

function listOf(batch: EventBatch, row: number, field: number): bigint[] {
  const at = batch.start[row]! + field * 2;
  const items = { words: batch.words, start: [batch.words[at]!] } as unknown as EventBatch;
  return Array.from({ length: batch.words[at + 1]! }, (_, item) => fieldBigint(items, 0, item));
}

async function rowsOf(trace: Trace): Promise<Row[]> {
  const rows: Row[] = [];
  for await (const batch of trace.batches())
    for (let row = 0; row < batch.count; row++) {
      const type = trace.types[batch.type[row]!]!;
      const values: Record<string, unknown> = {};
      type.fields.forEach(({ name, kind }, field) => {
        if (kind === "string") values[name] = fieldText(trace, batch, row, field);
        else if (kind === "array") values[name] = listOf(batch, row, field);
        else if (kind === "signed") values[name] = BigInt.asIntN(64, fieldBigint(batch, row, field));
        else values[name] = fieldBigint(batch, row, field);
      });
      rows.push({
        name: type.name,
        cpu: batch.cpu[row]!,
        pid: batch.pid[row]!,
        task: trace.strings[batch.task[row]!]!,
        buffer: trace.buffers[batch.buffer[row]!]!,
        time: trace.timeBase + BigInt(batch.timeNs[row]!),
        values,
      });
    }
  return rows;
}

const read = async (bytes: Uint8Array, options?: OpenOptions): Promise<Row[]> =>
  rowsOf(await openTrace(fileOfBytes("written", bytes), options));

const zlib = { name: "zlib" as const, pack: (bytes: Uint8Array) => new Uint8Array(deflateSync(bytes)) };
const TASKS = [[42, "a task-1: x"] as const];
const writer = (options: Partial<DatWriterOptions> = {}): DatWriter =>
  new DatWriter({ formats: SAMPLE_FORMATS, tasks: TASKS, ...options });

const KINDS: readonly Partial<DatWriterOptions>[] = [
  { version: 6, littleEndian: true },
  { version: 6, littleEndian: false },
  { version: 6, littleEndian: true, pageSize: 65536 },
  { version: 7, littleEndian: true },
  { version: 7, littleEndian: false, pageSize: 8192 },
  { version: 7, littleEndian: true, compression: zlib, chunkPages: 3 },
  { version: 7, littleEndian: false, compression: zlib, chunkPages: 1 },
];
const titleOf = (kind: Partial<DatWriterOptions>): string =>
  `version ${kind.version}, ${kind.littleEndian ? "little" : "big"}-endian, ${kind.pageSize ?? 4096}-byte pages${kind.compression ? ", zlib" : ""}`;

describe.each(KINDS.map((kind) => [titleOf(kind), kind] as const))("a trace.dat of %s", (_title, kind) => {
  const event = fc.record({
    cpu: fc.nat(2),
    delta: fc.oneof(fc.nat(1000), fc.nat(2 ** 31), fc.constant(0)),
    absolute: fc.boolean(),
    values: fc.record({
      tiny: fc.bigInt(0n, 255n),
      small: fc.bigInt(-128n, 127n),
      half: fc.bigInt(-32768n, 32767n),
      word: fc.bigInt(-(2n ** 31n), 2n ** 31n - 1n),
      wide: fc.bigInt(-(2n ** 63n), 2n ** 63n - 1n),
      name: fc.stringMatching(/^[a-z]{0,8}$/),
      pair: fc.tuple(fc.bigInt(0n, 65535n), fc.bigInt(0n, 65535n)),
      text: fc.stringMatching(/^[ -~]{0,200}$/),
      longs: fc.array(fc.bigInt(0n, 2n ** 64n - 1n), { maxLength: 20 }),
      ints: fc.array(fc.bigInt(-(2n ** 31n), 2n ** 31n - 1n), { maxLength: 5 }),
      note: fc.stringMatching(/^[a-z]{0,9}$/),
    }),
  });

  test("gives back every value of every kind of field, merged by time", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(event, { maxLength: 60 }), fc.constantFrom(1, 7, 4096), async (events, batchSize) => {
        const file = writer({ ...kind, cpus: 3 });
        const times = [10n ** 9n, 10n ** 9n, 10n ** 9n];
        const model = events.map(({ cpu, delta, absolute, values }, order) => {
          times[cpu]! += BigInt(delta);
          file.add(cpu, times[cpu]!, file.encode("every_kind", 42, values), 0, absolute);
          const items = (list: readonly bigint[]): bigint[] => list.map((item) => BigInt.asUintN(64, item));
          const expected = { ...values, ints: items(values.ints), longs: [...values.longs], pair: [...values.pair] };
          return { cpu, time: times[cpu]!, order, values: expected };
        });
        model.sort((a, b) => Number(a.time - b.time) || a.cpu - b.cpu || a.order - b.order);
        const rows = await read(file.finish(), { batchSize });
        expect(rows.map(({ cpu, time, values }) => ({ cpu, time, values }))).toEqual(
          model.map(({ cpu, time, values }) => ({ cpu, time, values })),
        );
        for (const row of rows) expect([row.pid, row.task, row.buffer]).toEqual([42, "a task-1: x", ""]);
      }),
      { numRuns: 40 },
    );
  });

  test("marks lost events where they were lost, and counts them", async () => {
    const file = writer({ ...kind, cpus: 2 });
    const add = (cpu: number, time: bigint): void =>
      file.add(cpu, time, file.encode("unmap", 7, { iova: time, size: 4096, unmapped_size: 4096 }));
    add(0, 100n);
    add(1, 150n);
    file.missed(0, 77);
    add(0, 200n);
    file.missed(1, -1);
    add(1, 250n);
    const trace = await openTrace(fileOfBytes("written", file.finish()));
    const rows = await rowsOf(trace);
    expect(rows.map(({ name, cpu, values }) => [name, cpu, values.count ?? values.iova])).toEqual([
      ["unmap", 0, 100n],
      ["unmap", 1, 150n],
      [LOST_EVENTS, 0, 77n],
      ["unmap", 0, 200n],
      [LOST_EVENTS, 1, -1n],
      ["unmap", 1, 250n],
    ]);
    expect(trace.lost).toBe(77);
  });

  test("keeps instances apart, and merges them", async () => {
    const file = writer({ ...kind, cpus: 2, instances: ["nvme", "net"] });
    for (let i = 0; i < 30; i++)
      file.add(i % 2, BigInt(1000 + i), file.encode("map", 42, { iova: i, paddr: 0, size: 1 }), i % 3);
    const rows = await read(file.finish());
    expect(rows.map(({ buffer, values }) => [buffer, values.iova])).toEqual(
      Array.from({ length: 30 }, (_, i) => [["", "nvme", "net"][i % 3], BigInt(i)]),
    );
  });
});

describe("an event of a trace.dat", () => {
  test("is read through the accessors: all-ones stays recognisable, signed stays signed", async () => {
    const file = writer();
    file.add(0, 1n, file.encode("dma_map_phys", 42, { device: "0000:00:04.0", dma_addr: -1n, size: 4096, dir: 1 }));
    file.add(0, 2n, file.encode("every_kind", 42, { word: -5 }));
    const trace = await openTrace(fileOfBytes("written", file.finish()));
    for await (const batch of trace.batches()) {
      expect(fieldText(trace, batch, 0, 0)).toBe("0000:00:04.0");
      expect(fieldNumber(batch, 0, 2)).toBe(2 ** 64);
      expect(fieldSigned(batch, 1, 3)).toBe(-5);
    }
  });

  test("of a type that the file does not describe is kept, without fields", async () => {
    const file = writer();
    const record = file.encode("map", 42, { iova: 1 });
    record[0] = 0x39;
    record[1] = 0x30;
    file.add(0, 5n, record);
    expect(await read(file.finish())).toMatchObject([{ name: "event_12345", pid: 42, values: {} }]);
  });

  test("whose times are beyond 2^53 is exact", async () => {
    const base = 2n ** 62n + 12345n;
    const file = writer({ cpus: 2 });
    for (let i = 0n; i < 10n; i++)
      file.add(Number(i % 2n), base + i * 1_000_000_007n, file.encode("map", 42, { iova: i }), 0, i % 3n === 0n);
    const rows = await read(file.finish());
    expect(rows.map(({ time }) => time)).toEqual(
      Array.from({ length: 10 }, (_, i) => base + BigInt(i) * 1_000_000_007n),
    );
  });
});

describe("reading a long trace.dat", () => {
  test("asks for one window per CPU at a time, whatever the length of the file", async () => {
    const file = writer({ cpus: 2 });
    const record = file.encode("map", 42, { iova: 1 });
    for (let i = 0; i < 100_000; i++) file.add(i & 1, BigInt(i), record);
    const bytes = file.finish();
    expect(bytes.length).toBeGreaterThan(3_000_000);
    let longest = 0;
    const trace = await openTrace({
      name: "long",
      size: bytes.length,
      read: async (offset, length) => {
        longest = Math.max(longest, length);
        return bytes.subarray(offset, offset + length);
      },
    });
    let events = 0;
    for await (const batch of trace.batches()) events += batch.count;
    expect(events).toBe(100_000);
    expect(longest).toBeLessThanOrEqual(256 * 1024);
  });
});

describe("a damaged trace.dat", () => {
  const build = (): { bytes: Uint8Array; pages: number } => {
    const file = writer({ cpus: 2 });
    for (let i = 0; i < 1000; i++)
      file.add(i % 2, BigInt(i), file.encode("unmap", 42, { iova: i, size: 1, unmapped_size: 1 }));
    const bytes = file.finish();
    return { bytes, pages: bytes.length - 10 * 4096 };
  };

  test("stops strict reading at the page, and best effort reads up to it and the other CPU", async () => {
    const { bytes, pages } = build();
    const at = pages + 2 * 4096 + 8; // CPU 0's third page of five: its commit
    bytes[at + 1] = 0xff;
    await expect(read(bytes)).rejects.toMatchObject({ code: "ERR_DMA_TRACE_DAMAGED", details: { offset: at } });
    const trace = await openTrace(fileOfBytes("damaged", bytes), { bestEffort: true });
    const rows = await rowsOf(trace);
    expect(trace.damage?.offset).toBe(at);
    expect(rows.filter(({ cpu }) => cpu === 1).length).toBe(500);
    const kept = rows.filter(({ cpu }) => cpu === 0).map(({ values }) => values.iova);
    expect(kept.length).toBeGreaterThan(200);
    expect(kept).toEqual(kept.map((_, i) => BigInt(i * 2)));
  });

  test("that is cut says how much is missing, and best effort reads the rest", async () => {
    const { bytes } = build();
    const cut = bytes.slice(0, bytes.length - 3 * 4096 - 100);
    await expect(read(cut)).rejects.toMatchObject({ details: { offset: cut.length } });
    const trace = await openTrace(fileOfBytes("cut", cut), { bestEffort: true });
    const rows = await rowsOf(trace);
    expect(trace.damage?.offset).toBe(cut.length);
    expect(rows.filter(({ cpu }) => cpu === 0).length).toBe(500);
    expect(rows.length).toBeGreaterThan(500);
  });

  test("whose CPUs claim the same pages is refused", async () => {
    const { bytes } = build();
    const table = Buffer.from(bytes).indexOf("flyrecord\0") + 10;
    bytes.copyWithin(table + 16, table, table + 8); // CPU 1 begins where CPU 0 begins
    bytes[table + 8 + 2] = bytes[table + 16 + 8 + 2] = 1; // and both are 64 KiB longer
    await expect(read(bytes)).rejects.toMatchObject({ code: "ERR_DMA_TRACE_DAMAGED" });
  });

  test("of version 7 without its end is read from the packed pages that are left", async () => {
    const file = writer({ version: 7, cpus: 2, compression: zlib, chunkPages: 1 });
    for (let i = 0; i < 2000; i++) file.add(i % 2, BigInt(i), file.encode("map", 42, { iova: i, paddr: 1, size: 1 }));
    const bytes = file.finish();
    const cut = bytes.slice(0, bytes.length - 1000);
    await expect(read(cut)).rejects.toMatchObject({ code: "ERR_DMA_TRACE_DAMAGED" });
    const trace = await openTrace(fileOfBytes("cut", cut), { bestEffort: true });
    const rows = await rowsOf(trace);
    expect(trace.damage).toBeDefined();
    expect(rows.filter(({ cpu }) => cpu === 0).map(({ values }) => values.iova)).toEqual(
      Array.from({ length: 1000 }, (_, i) => BigInt(i * 2)),
    );
    expect(new Set(rows.map(({ task }) => task))).toEqual(new Set(["a task-1: x"]));
  });

  test("cannot make the reader allocate what it does not have", async () => {
    const { bytes } = build();
    bytes.fill(0xff, 31, 38); // the size of header_page
    await expect(read(bytes)).rejects.toMatchObject({ code: "ERR_DMA_TRACE_DAMAGED" });
  });
});
