/**
 * Files that were made to break a reader: bounded time and memory, an error that says where, and nothing refused that is
 * whole. The times are those that a reading in proportion to the file is far below, and a quadratic one far above.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { known } from "./catalogue.ts";
import { fileOfBytes } from "./cursor.ts";
import { parseEventFormat } from "./event-format.ts";
import type { Trace } from "./events.ts";
import { type OpenOptions, openTrace } from "./open.ts";
import { SAMPLE_FORMATS } from "./sample-formats.ts";
import { openAs, rowsOf } from "./text/read-text.ts";
import { DatWriter } from "./write-dat.ts";

const FOLDER = join(import.meta.dirname, "../../test/golden/attacks");

function bytesOf(name: string): Uint8Array {
  const bytes = readFileSync(join(FOLDER, name));
  return new Uint8Array(name.endsWith(".gz") ? gunzipSync(bytes) : bytes);
}

const open = (name: string, options?: OpenOptions): Promise<Trace> =>
  openTrace(fileOfBytes(name, bytesOf(name)), options);
const eventsOf = async (name: string): Promise<number> => (await rowsOf(await open(name))).length;
/** Seconds of this process that `work` takes. */
async function secondsOf(work: () => Promise<unknown>): Promise<number> {
  const before = process.cpuUsage();
  await work();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1e6;
}

describe("a file that claims too much is damaged, at an offset", () => {
  test.each([
    ["more CPUs than there are", "seed-103-cpus.dat.gz", /at most 65536 CPUs, found 1768843552/],
    ["pages that many CPUs share", "overlap-chunks.dat.gz", /the pages of CPU 1 .* overlap/],
    ["a field's line of 100,000 characters", "redos-name-100000.dat.gz", /a field's line of 100037 characters/],
    ["a shift of times of 30 digits", "tsoffset-30.dat.gz", /does not fit into 63 bits/],
    ["a stamp of 64 bits", "time-huge.dat.gz", /do not fit into 63 bits/],
    ["a last line that is cut", "cpus-hang.txt", /may be cut/],
  ])("%s", async (_name, file, message) => {
    const reading = async (): Promise<unknown> => rowsOf(await open(file));
    await expect(reading()).rejects.toMatchObject({
      code: "ERR_DMA_TRACE_DAMAGED",
      message: expect.stringMatching(message),
    });
    const trace = await open(file, { bestEffort: true });
    const rows = await rowsOf(trace);
    expect(trace.damage?.offset).toEqual(expect.any(Number));
    for (const { ns } of rows) expect(ns < 1n << 63n).toBe(true);
    expect(trace.cpus ?? 0).toBeLessThanOrEqual(65536);
  });

  test.each([6, 7] as const)(
    "a clock's multiplier that makes times of more than they can hold, version %d",
    async (version) => {
      const clock = new Uint8Array(16);
      new DataView(clock.buffer).setUint32(0, 0xffff_ffff, true);
      const writer = new DatWriter({ formats: SAMPLE_FORMATS, version, clock: "x86-tsc", extra: [[14, clock]] });
      for (let i = 1n; i < 20n; i++)
        writer.add(0, i * 10n ** 9n, writer.encode("map", 1, { iova: 1, paddr: 1, size: 1 }));
      const reading = openTrace(fileOfBytes("x", writer.finish()));
      await expect(reading.then(rowsOf)).rejects.toMatchObject({ code: "ERR_DMA_TRACE_DAMAGED" });
    },
  );

  test("a text's time of fifteen digits is no time", async () => {
    await expect(openAs(`     fio-7     [000] 99999999999999.900000: map: IOMMU: x\n`)).rejects.toMatchObject({
      code: "ERR_DMA_TRACE_FORMAT",
    });
  });

  test("a number of CPUs in text that no machine has is not believed", async () => {
    const trace = await openAs("cpus=99999999999999\n     fio-7     [000]     1.000000: a: b=1\n");
    expect(trace.cpus).toBeUndefined();
    expect(await rowsOf(trace)).toHaveLength(1);
  });
});

describe("a whole file is read, whatever is odd in it", () => {
  test("an option that is longer than what follows the options", async () => {
    const trace = await open("nothing-recorded.dat.gz");
    expect(await rowsOf(trace)).toEqual([]);
    expect(trace.system).toMatch(/7\.2\.13/);
  });

  test("a probe whose string lies at an odd byte", async () => {
    const rows = await rowsOf(await open("unaligned-dataloc.dat.gz"));
    expect(rows.map(({ event, values }) => [event, values.flag, values.dev])).toEqual([
      ["probes:myprobe", 7n, "0000:00:04.0"],
      ["probes:myprobe", 9n, "0000:00:05.0"],
    ]);
  });

  test("events that are called as things of the language are", async () => {
    const rows = await rowsOf(await open("proto.txt"));
    expect(rows.map(({ event }) => event)).toEqual([
      "dma_map_phys",
      "__proto__",
      "constructor",
      "toString",
      "hasOwnProperty",
      "dma_map_phys",
      "dma_map_phys",
    ]);
    expect(rows.at(-1)!.values.device).toBe("constructor");
  });

  test("more kinds of events than a number of 16 bits counts", async () => {
    const formats = Array.from({ length: 65_535 }, (_, id) => ({
      system: "many",
      text: `name: e${id + 1}\nID: ${id + 1}\nformat:\n\nprint fmt: ""\n`,
    }));
    const writer = new DatWriter({ formats });
    for (const id of [0, 65_535]) writer.add(0, 5n, Uint8Array.of(id & 0xff, id >>> 8, 0, 0, 1, 0, 0, 0));
    const rows = await rowsOf(await openTrace(fileOfBytes("x", writer.finish())));
    expect(rows.map(({ event }) => event)).toEqual(["event_0", "many:e65535"]);
  });

  test("a count of lost events of any length stays a number", async () => {
    const trace = await open("lost-inf.dat.gz");
    expect(Number.isSafeInteger(trace.lost)).toBe(true);
    expect(trace.lost).toBeGreaterThan(0);
  });
});

describe("times that go back", () => {
  test.each([
    ["time-back.txt", 10, 5],
    ["time-page-back.dat.gz", 160, 1],
  ])("in %s are said, and none is negative", async (file, events, steps) => {
    const trace = await open(file);
    let least = Number.POSITIVE_INFINITY;
    let count = 0;
    for await (const batch of trace.batches())
      for (let row = 0; row < batch.count; row++, count++) least = Math.min(least, batch.timeNs[row]!);
    expect(count).toBe(events);
    expect(least).toBeGreaterThanOrEqual(0);
    expect(trace.remarks).toEqual([expect.objectContaining({ code: "time-back", count: steps })]);
  });

  test("of a recording whose first stamp is far from zero are exact on both sides of it", async () => {
    const first = 10n ** 18n;
    const writer = new DatWriter({ formats: SAMPLE_FORMATS, cpus: 2 });
    const record = writer.encode("map", 1, { iova: 1, paddr: 1, size: 1 });
    writer.add(0, first, record);
    writer.add(0, first + 10n ** 15n, record, 0, true);
    writer.add(1, first - 12345n, record);
    const rows = await rowsOf(await openTrace(fileOfBytes("x", writer.finish())));
    expect(rows.map(({ ns }) => ns)).toEqual([first - 12345n, first, first + 10n ** 15n]);
  });
});

describe("an event that bears a catalogued name and is laid out otherwise", () => {
  test.each([
    ["device-scalar-4g.dat.gz", "dma_map_phys"],
    ["scalar-for-list.dat.gz", "dma_map_sg"],
  ])("%s is kept, not known, and counted", async (file, name) => {
    const trace = await open(file);
    expect((await rowsOf(trace)).map(({ event }) => event)).toEqual([`dma:${name}`]);
    expect(trace.types.filter((type) => type.name === name).map(known)).toEqual([undefined]);
    expect(trace.remarks).toEqual([expect.objectContaining({ code: "unknown-form", count: 1 })]);
    expect(trace.remarks[0]!.message).toContain(name);
  });
});

describe("reading takes time in proportion to the file", () => {
  const FRONT = "     fio-7     [000]     1.000000: ";
  const long = (unit: string, length: number): string => unit.repeat(Math.ceil(length / unit.length));
  const MOST = 400_000;

  test.each([
    ["pairs whose braces never close", `${FRONT}zzz: ${long("a={ ", MOST)}`],
    ["pairs whose quotes never close", `${FRONT}zzz: ${long('a=" ', MOST)}`],
    ["arrays that never close", `${FRONT}zzz: ${long("a=ARRAY[ ", MOST)}`],
    ["a catalogued name and pairs", `${FRONT}dma_map_sg: ${long("dma_addrs={ ", MOST)}`],
    ["parentheses", `${FRONT}zzz: ${long("(", MOST)}`],
    ["brackets where the CPU stands", long("[1] ", MOST)],
    ["brackets behind parentheses", long(")[1] ", MOST)],
    ["stamps", long("1.000000: ", MOST)],
    ["names", long("a:b: ", MOST)],
    ["bars", long(" | ", MOST)],
    ["spaces", `${long(" ", MOST)}x`],
    ["one word", long("x", MOST)],
    ["a frame without end", `${FRONT}<stack trace>\n=> ${long("x", MOST)}`],
    ["the end of a comment", `${FRONT}map: IOMMU: ${long(" */", MOST)}`],
    ["what perf prints behind", `${FRONT}dma_unmap_phys: ${long("aaaaaaaaaaaaaaaa ", MOST)}`],
    ["many equal signs", `${FRONT}dma_map_phys: ${long("a=", MOST)}`],
  ])("%s", { timeout: 200_000 }, async (_name, line) => {
    const text = `cpus=1\n${FRONT}ok: a=1\n${line}\n${FRONT}ok: a=1\n`;
    expect(
      await secondsOf(async () => expect((await rowsOf(await openAs(text))).length).toBeGreaterThanOrEqual(2)),
    ).toBeLessThan(5);
  });

  test("many short lines of each", { timeout: 200_000 }, async () => {
    const lines = ["[1] -5 ", ")[1] 12: ", "| /* map", "a:b", "=> x", "1) | |", "\tffff", "CPU:1 [LOST", " 1.000000:"];
    const text = `cpus=1\n${FRONT}ok: a=1\n${Array.from({ length: 60_000 }, (_, i) => lines[i % lines.length]).join("\n")}\n`;
    const trace = await openAs(text);
    expect(await secondsOf(() => rowsOf(trace))).toBeLessThan(40);
    expect(trace.remarks.find(({ code }) => code === "unknown-line")!.count).toBeGreaterThan(30_000);
  });

  test("a line of 250,000 braces, as found in the field", { timeout: 200_000 }, async () => {
    expect(await secondsOf(() => eventsOf("pairs-quad-250k.txt.gz"))).toBeLessThan(40);
  });

  test("a long line in small pieces", { timeout: 200_000 }, async () => {
    const bytes = new TextEncoder().encode(`${FRONT}zzz: ${long("x", 900_000)}\n`);
    const stream = (async function* () {
      for (let at = 0; at < bytes.length; at += 16) yield bytes.subarray(at, at + 16);
    })();
    expect(await secondsOf(async () => rowsOf(await openTrace({ name: "pipe", stream })))).toBeLessThan(40);
  });

  test("fields whose names are made to be looked at again and again", () => {
    for (const declaration of [
      long("[", 4000),
      `${long("a", 4000)}!x`,
      `${long("[]", 3900)} x`,
      long("__data_loc ", 3900),
    ]) {
      const text = `name: e\nID: 1\nformat:\n${`\tfield:${declaration};\toffset:8;\tsize:4;\tsigned:0;\n`.repeat(400)}`;
      const before = process.cpuUsage();
      try {
        parseEventFormat(text, "s", 8, 0);
      } catch (error) {
        expect(error).toMatchObject({ code: "ERR_DMA_TRACE_DAMAGED" });
      }
      expect(process.cpuUsage(before).user / 1e6).toBeLessThan(30);
    }
  });

  test("choosing the next of many CPUs", { timeout: 200_000 }, async () => {
    const cpus = 4000;
    const writer = new DatWriter({ formats: SAMPLE_FORMATS, cpus });
    const record = writer.encode("map", 1, { iova: 1, paddr: 1, size: 1 });
    for (let i = 0; i < cpus * 3; i++) writer.add(i % cpus, BigInt(i), record);
    const bytes = writer.finish();
    expect(await secondsOf(async () => rowsOf(await openTrace(fileOfBytes("x", bytes))))).toBeLessThan(40);
  });
});

test("a list that reaches past its event is damage, and nothing of the next event is read as its", async () => {
  const damagedBy = async (bytesPast: number): Promise<unknown> => {
    const writer = new DatWriter({ formats: SAMPLE_FORMATS });
    const record = writer.encode("every_kind", 1, { longs: [1n, 2n, 3n] });
    const field = parseEventFormat(
      SAMPLE_FORMATS.find(({ text }) => text.includes("every_kind"))!.text,
      "x",
      8,
      0,
    ).fields.find(({ name }) => name === "longs")!;
    const view = new DataView(record.buffer, record.byteOffset, record.length);
    const located = view.getUint32(field.offset, true);
    const room = record.length - (located & 0xffff);
    view.setUint32(field.offset, ((room + bytesPast) << 16) | (located & 0xffff), true);
    writer.add(0, 5n, record);
    writer.add(0, 6n, writer.encode("every_kind", 1, { longs: [4n] }));
    return rowsOf(await openTrace(fileOfBytes("x", writer.finish())));
  };
  await expect(damagedBy(8)).rejects.toMatchObject({
    code: "ERR_DMA_TRACE_DAMAGED",
    message: expect.stringMatching(/a list reaches 8 bytes past/),
  });
  await expect(damagedBy(1)).rejects.toMatchObject({ code: "ERR_DMA_TRACE_DAMAGED" });
  expect(await damagedBy(0)).toHaveLength(2);
});
