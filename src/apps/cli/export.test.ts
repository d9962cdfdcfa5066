/** Exports of written and recorded traces, judged by Perfetto's own trace processor, a Parquet reader, and DuckDB. */
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gunzipSync, inflateSync } from "node:zlib";
import fc from "fast-check";
import { asyncBufferFromFile, parquetMetadataAsync, parquetReadObjects, parquetSchema } from "hyparquet";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { TraceProcessor } from "../../../test/models/trace-processor.ts";
import { RequestColumns } from "../../analysis/index.ts";
import { type FileInput, openTrace, type Trace } from "../../trace/index.ts";
import { SAMPLE_FORMATS } from "../../trace/sample-formats.ts";
import { DatWriter } from "../../trace/write-dat.ts";
import { EnvironmentError } from "./environment.ts";
import { escaped } from "./escape.ts";
import { exportCommand } from "./export.ts";
import { reportPage } from "./export-html.ts";
import { claimTables, type TableOutputs, writeParquet } from "./export-parquet.ts";
import { writePerfetto } from "./export-perfetto.ts";
import { mappingRows, requestRows, TABLE_NAMES, TABLES } from "./export-tables.ts";
import { occupancyOf } from "./occupancy.ts";
import { Outputs } from "./output.ts";
import { strengthPng } from "./png.ts";
import { ProtoWriter } from "./protobuf.ts";
import { loadDuckDb, query } from "./query.ts";
import { type Recording, readRecording } from "./recording.ts";
import { Restore } from "./restore.ts";

const traces = join(import.meta.dirname, "../../../test/golden/traces");

function fileOf(bytes: Uint8Array): FileInput {
  return { name: "t", size: bytes.length, read: async (at, n) => bytes.subarray(at, at + n) };
}
const golden = (name: string): Promise<Trace> => openTrace(fileOf(gunzipSync(readFileSync(join(traces, name)))));

const tablesIn = (folder: string): TableOutputs => claimTables(folder, new Outputs(new Restore()));

interface Written {
  readonly timeNs: number;
  readonly name: "dma_map_phys" | "dma_unmap_phys";
  readonly device?: string;
  readonly address: number | bigint;
  readonly size?: number;
}

const UNMAP_FORMAT = {
  system: "dma",
  text: SAMPLE_FORMATS[0]!.text.replace("name: dma_map_phys", "name: dma_unmap_phys").replace("ID: 382", "ID: 383"),
};

/** A trace of one CPU with these events. */
function written(events: readonly Written[]): Promise<Trace> {
  const writer = new DatWriter({ formats: [...SAMPLE_FORMATS, UNMAP_FORMAT], tasks: [[77, "fio"]] });
  for (const [i, { timeNs, name, device = "0000:00:04.0", address, size = 4096 }] of events.entries()) {
    const values = { device, phys_addr: 0x10_0000 + i * 0x1000, dma_addr: address, size, dir: 2 };
    writer.add(0, BigInt(1_000_000_000 + timeNs), writer.encode(name, 77, values));
  }
  return openTrace(fileOf(writer.finish()));
}

async function perfetto(trace: Trace): Promise<{ recording: Recording; processor: TraceProcessor }> {
  const recording = await readRecording(trace);
  const parts: Uint8Array[] = [];
  writePerfetto(recording, (bytes) => void parts.push(bytes.slice()));
  return { recording, processor: await TraceProcessor.load(Buffer.concat(parts)) };
}

const SLICES =
  "select ts, dur, slice.name as name, process.name as device, thread_or.name as lane from slice " +
  "join process_track as thread_or on slice.track_id = thread_or.id join process using (upid)";

describe("a Perfetto trace", () => {
  test("has each mapping as a slice of its device, from map to unmap; overlapping ones on tracks of their own", async () => {
    const { processor } = await perfetto(
      await written([
        { timeNs: 0, name: "dma_map_phys", address: 0x5000 },
        { timeNs: 10, name: "dma_map_phys", address: 0x7000, size: 8192 },
        { timeNs: 20, name: "dma_unmap_phys", address: 0x5000 },
        { timeNs: 30, name: "dma_map_phys", address: 0x9000, device: "0000:00:05.0" },
        { timeNs: 50, name: "dma_unmap_phys", address: 0x7000, size: 8192 },
      ]),
    );
    expect(processor.query(`${SLICES} order by ts`)).toEqual([
      { ts: 1_000_000_000n, dur: 20n, name: "one-shot 4 KiB", device: "0000:00:04.0", lane: "mappings 1" },
      { ts: 1_000_000_010n, dur: 40n, name: "one-shot 8 KiB", device: "0000:00:04.0", lane: "mappings 2" },
      { ts: 1_000_000_030n, dur: -1n, name: "one-shot 4 KiB", device: "0000:00:05.0", lane: "mappings 1" },
    ]);
    const args = processor.query(
      "select args.key as key, int_value, string_value from slice join args using (arg_set_id) where ts = 1000000010",
    );
    const of = (key: string) => args.find((arg) => arg.key === `debug.${key}`);
    expect(of("iova")?.int_value).toBe(0x7000n);
    expect(of("direction")?.string_value).toBe("from-device");
    expect(of("task")?.string_value).toBe("fio-77");
  });

  test("counts bytes mapped and live mappings at each change", async () => {
    const { processor } = await perfetto(
      await written([
        { timeNs: 0, name: "dma_map_phys", address: 0x5000 },
        { timeNs: 10, name: "dma_map_phys", address: 0x7000, size: 8192 },
        { timeNs: 20, name: "dma_unmap_phys", address: 0x5000 },
      ]),
    );
    const counters = processor.query(
      "select ts - 1000000000 as at, value, t.name as name from counter join process_counter_track as t on counter.track_id = t.id order by t.name, ts",
    );
    expect(counters.map(({ at, value, name }) => [name, at, value])).toEqual([
      ["IOVA bytes mapped", 0n, 4096],
      ["IOVA bytes mapped", 10n, 12288],
      ["IOVA bytes mapped", 20n, 8192],
      ["live mappings", 0n, 1],
      ["live mappings", 10n, 2],
      ["live mappings", 20n, 1],
    ]);
  });

  test("has each finding as an instant with its message", async () => {
    const { recording, processor } = await perfetto(
      await written([
        { timeNs: 0, name: "dma_map_phys", address: 0x5000 },
        { timeNs: 10, name: "dma_unmap_phys", address: 0x5000 },
        { timeNs: 20, name: "dma_unmap_phys", address: 0x5000 },
      ]),
    );
    expect(recording.result.findings.length).toBeGreaterThan(0);
    const instants = processor.query(
      "select slice.name as rule, ts, string_value as message from slice join args using (arg_set_id) where dur = 0 and key = 'debug.message' order by ts",
    );
    expect(instants.map(({ rule, message }) => [rule, message])).toEqual(
      [...recording.result.findings].sort((a, b) => a.timeNs - b.timeNs).map(({ rule, message }) => [rule, message]),
    );
  });

  test.each([
    "strict-mix7030.dat.gz",
    "strict-net.dat.gz",
    "iommufd-vfio.dat.gz",
    "strict-inflight.dat.gz",
    "pt-rr4k-qd32.dat.gz",
  ])("of %s: every mapping is a slice, none is bent, no byte is unknown to the trace processor", async (name) => {
    const { recording, processor } = await perfetto(await golden(name));
    const [{ n, ended }] = processor.query(
      "select count(*) as n, sum(dur >= 0) as ended from slice join process_track on slice.track_id = process_track.id where process_track.name glob 'mappings*'",
    ) as [{ n: bigint; ended: bigint }];
    const { mappings } = recording;
    expect(Number(n)).toBe(mappings.count);
    expect(Number(ended)).toBe(mappings.endNs.subarray(0, mappings.count).filter((end) => end >= 0).length);
    expect(processor.query("select count(*) as deep from slice where depth > 0")).toEqual([{ deep: 0n }]);
    expect(
      processor.query("select name, value from stats where value > 0 and severity in ('error', 'data_loss')"),
    ).toEqual([]);
    const [{ last }] = processor.query(
      "select value as last from counter join process_counter_track as t on counter.track_id = t.id where t.name = 'IOVA bytes mapped' order by ts desc limit 1",
    ) as [{ last: number }];
    const devices = new Set(mappings.device.subarray(0, mappings.count));
    if (devices.size === 1)
      expect(last).toBe(
        mappings.length
          .subarray(0, mappings.count)
          .reduce((sum, length, i) => sum + (mappings.endNs[i]! < 0 ? length : 0), 0),
      );
  });

  test("protocol buffers hold any number and any text", () => {
    fc.assert(
      fc.property(
        fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
        fc.maxSafeNat(),
        fc.string({ unit: "binary" }),
        (big, small, text) => {
          const parts: Uint8Array[] = [];
          const out = new ProtoWriter((bytes) => void parts.push(bytes.slice()));
          out.message(1, () => {
            out.uint(2, big);
            out.uint(3, small);
            out.string(4, text);
          });
          out.finish();
          const bytes = Buffer.concat(parts);
          let at = 0;
          const varint = (): bigint => {
            let value = 0n;
            for (let shift = 0n; ; shift += 7n) {
              value |= BigInt(bytes[at]! & 0x7f) << shift;
              if (bytes[at++]! < 0x80) return value;
            }
          };
          expect([varint(), Number(varint())]).toEqual([10n, bytes.length - at]);
          expect([varint(), varint(), varint(), varint(), varint()]).toEqual([16n, big, 24n, BigInt(small), 34n]);
          const length = Number(varint());
          expect(bytes.subarray(at, at + length).toString("utf8")).toBe(Buffer.from(text).toString("utf8"));
        },
      ),
    );
  });
});

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "dmalink-export-"));
});
afterAll(() => rmSync(folder, { recursive: true }));

const readTable = async (from: string, name: string): Promise<Record<string, unknown>[]> =>
  parquetReadObjects({ file: await asyncBufferFromFile(join(from, `${name}.parquet`)) });

describe("Parquet tables", () => {
  test("do not say which way data go where no event does", async () => {
    const { mappings, requests } = await readRecording(await golden("strict-mix7030.dat.gz"));
    const recording = { mappings, requests, trace: await golden("strict-mix7030.dat.gz") } as Recording;
    const said = (rows: Iterable<unknown[]>, columns: readonly { readonly name: string }[]) => {
      const [kind, direction] = ["kind", "direction"].map((name) => columns.findIndex((one) => one.name === name));
      const counts: Record<string, number> = {};
      for (const row of rows) {
        const what =
          row[kind!] === "unattributed" ? `unattributed, ${row[direction!]}` : String(row[direction!] !== null);
        counts[what] = (counts[what] ?? 0) + 1;
      }
      return counts;
    };
    const expected = [...requests].filter((request) => request.kind === "unattributed").length;
    expect(expected).toBe(870);
    const mapped = said(mappingRows(recording), TABLES.mappings);
    expect(mapped).toEqual({ true: mapped.true, "unattributed, null": expected });
    const asked = said(requestRows(recording), TABLES.requests);
    expect(asked).toEqual({ true: asked.true, "unattributed, null": expected });
    for (const table of ["mappings", "requests"] as const)
      expect(TABLES[table].find(({ name }) => name === "direction")?.nullable).toBe(true);
  });

  test("are read back as they were: all-ones addresses, sizes, times, names, and nulls where nothing was said", async () => {
    const target = join(folder, "small");
    const trace = await written([
      { timeNs: 5, name: "dma_map_phys", address: 0x5000, size: 1522 },
      { timeNs: 9, name: "dma_map_phys", address: 0xffff_ffff_ffff_ffffn },
      { timeNs: 12, name: "dma_unmap_phys", address: 0x5000, size: 1522 },
    ]);
    const { rows } = await writeParquet(trace, tablesIn(target));
    const events = await readTable(target, "events");
    expect(events).toHaveLength(rows.events);
    expect(events[0]).toEqual({
      time_ns: 1_000_000_005n,
      cpu: 0,
      pid: 77,
      task: "fio",
      system: "dma",
      name: "dma_map_phys",
      device: "0000:00:04.0",
      direction: "from-device",
      iova: 0x5000n,
      phys: 0x10_0000n,
      length: 1522n,
      unmapped_length: null,
      offset: null,
      state: null,
      attrs: 0n,
      fields: null,
    });
    expect(events[1]!.iova).toBe(0xffff_ffff_ffff_ffffn);
    const [mapping] = await readTable(target, "mappings");
    expect(mapping).toMatchObject({
      kind: "one-shot",
      iova: 0x5000n,
      length: 1522n,
      lifetime_ns: 7n,
      start_ns: 1_000_000_005n,
    });
  });

  test("have the documented columns, in all four files, and no half-written one beside them", async () => {
    const target = join(folder, "columns");
    await writeParquet(await golden("strict-reload-nvme.dat.gz"), tablesIn(target));
    expect(readdirSync(target).sort()).toEqual(TABLE_NAMES.map((name) => `${name}.parquet`).sort());
    const docs = readFileSync(join(import.meta.dirname, "../../../docs/export-and-query.md"), "utf8");
    for (const name of TABLE_NAMES) {
      const metadata = await parquetMetadataAsync(await asyncBufferFromFile(join(target, `${name}.parquet`)));
      expect(parquetSchema(metadata).children.map(({ element }) => element.name)).toEqual(
        TABLES[name].map((column) => column.name),
      );
      for (const column of TABLES[name]) expect(docs).toContain(`\`${column.name}\``);
    }
  });

  test.each(["strict-mix7030.dat.gz", "iommufd-vfio.dat.gz", "lazy-sw1m-flush.dat.gz", "strict-fs.dat.gz"])(
    "of %s hold every event, mapping and request",
    async (name) => {
      const target = join(folder, name);
      const { recording, rows } = await writeParquet(await golden(name), tablesIn(target));
      expect(rows).toMatchObject({
        mappings: recording.mappings.count,
        requests: recording.requests.count,
        findings: recording.result.findings.length,
      });
      const meta = JSON.parse(readFileSync(join(traces, name.replace(".dat.gz", ".meta.json")), "utf8"));
      const counts: Record<string, number> = {};
      for (const { name: event } of await readTable(target, "events"))
        counts[event as string] = (counts[event as string] ?? 0) + 1;
      expect(counts).toEqual(meta.events);
      const requests = await readTable(target, "requests");
      expect(requests.reduce((sum, { length }) => sum + Number(length), 0)).toBe(
        [...recording.requests].reduce((sum, { length }) => sum + length, 0),
      );
    },
  );

  test("events outside the catalogue keep their fields, as JSON", async () => {
    const target = join(folder, "fields");
    await writeParquet(await golden("lazy-sw1m-flush.dat.gz"), tablesIn(target));
    const [flush] = (await readTable(target, "events")).filter(({ name }) => name === "cache_tag_flush_range");
    expect(JSON.parse(flush!.fields as string)).toMatchObject({ start: 0, type: expect.anything() });
  });
});

describe("dmalink query", () => {
  const ask = async (trace: string, sql: string | undefined): Promise<string> => {
    const out: string[] = [];
    const spy = vi.spyOn(process.stdout, "write").mockImplementation((text) => out.push(String(text)) > 0);
    try {
      await query(join(traces, trace), sql, { json: true });
    } finally {
      spy.mockRestore();
    }
    return out.join("");
  };

  test("answers over the four tables; addresses are hex, other numbers are numbers", async () => {
    const answer = JSON.parse(
      await ask(
        "strict-sw1m-probes.dat.gz",
        "select device, kind, count(*) as n, sum(length) as bytes, max(iova) as top from mappings group by all",
      ),
    );
    expect(answer).toMatchObject({
      schema: "dmalink.query/1",
      rows: [{ device: "0000:00:04.0", kind: "two-step", n: 320, bytes: 41_943_040, top: "0xfff80000" }],
    });
  });

  test("the examples of the documentation run", async () => {
    const docs = readFileSync(join(import.meta.dirname, "../../../docs/export-and-query.md"), "utf8");
    const examples = [...docs.matchAll(/```sql\n([\s\S]*?)```/g)].map(([, sql]) => sql!);
    expect(examples.length).toBeGreaterThanOrEqual(5);
    for (const sql of examples) expect(JSON.parse(await ask("strict-net.dat.gz", sql)).rows, sql).toBeInstanceOf(Array);
  });

  test("a wrong question is one clear error that names the tables", async () => {
    await expect(ask("strict-reload-nvme.dat.gz", "select nope from mappings")).rejects.toThrow(
      /nope[\s\S]*events, mappings, requests, findings/,
    );
  });

  test("without SQL it lists the tables; without DuckDB it says what to install", async () => {
    expect(JSON.parse(await ask("none", undefined))).toMatchObject({ schema: "dmalink.tables/1" });
    const missing = loadDuckDb(() => Promise.reject(new Error("Cannot find package '@duckdb/node-api'")));
    await expect(missing).rejects.toThrow(EnvironmentError);
    await expect(missing).rejects.toThrow(/npm install @duckdb\/node-api.*--parquet/);
  });
});

describe("an occupancy picture", () => {
  /** Mappings of one page each unless said. */
  function mappingsOf(
    list: readonly (readonly [iova: number, start: number, end: number, length?: number])[],
  ): RequestColumns {
    const mappings = new RequestColumns();
    for (const [i, [iova, startNs, end, length = 4096]] of list.entries())
      mappings.add(
        { segments: [{ iova, phys: iova, length }], startNs, endNs: end < 0 ? undefined : end },
        [],
        2 * i,
        end < 0 ? -1 : 2 * i + 1,
      );
    return mappings;
  }

  test("is the share of each piece that was mapped, averaged over its time; unused space has no row", () => {
    const mappings = mappingsOf([
      [0x1000, 0, 50],
      [0x1000, 50, 75],
      [0x9000, -1, -1],
    ]);
    const picture = occupancyOf(mappings, [0, 1, 2], { columns: 2, mostRows: 10, firstNs: 0, lastNs: 100 });
    expect(picture.addresses).toEqual([0x9000, 0x1000]);
    expect([...picture.share]).toEqual([1, 1, 1, 0.5]);
    expect([...picture.peakBytes]).toEqual([8192, 8192]);
  });

  test("agrees with a slow model, whatever the mappings", () => {
    const life = fc.tuple(fc.nat(15), fc.nat(99), fc.integer({ min: 1, max: 100 }));
    fc.assert(
      fc.property(fc.array(life, { minLength: 1, maxLength: 12 }), (lives) => {
        // One mapping of a page at a time, so that shares add up to the truth.
        const busy = new Map<number, number>();
        const list = lives
          .map(([page, start, length]) => [page * 4096, start, Math.min(100, start + length)] as const)
          .sort((a, b) => a[1] - b[1])
          .filter(([iova, start, end]) => (busy.get(iova) ?? 0) <= start && busy.set(iova, end));
        const mappings = mappingsOf(list);
        const rows = list.map((_, i) => i);
        const picture = occupancyOf(mappings, rows, { columns: 10, mostRows: 16, firstNs: 0, lastNs: 100 });
        for (const [line, address] of picture.addresses.entries())
          for (let column = 0; column < 10; column++) {
            let mapped = 0;
            for (let ns = column * 10; ns < column * 10 + 10; ns++)
              if (list.some(([iova, start, end]) => iova === address && start <= ns && ns < end)) mapped++;
            expect(picture.share[line * 10 + column]).toBeCloseTo(mapped / 10, 9);
          }
      }),
    );
  });

  test("rows grow until they fit", () => {
    const mappings = mappingsOf(Array.from({ length: 100 }, (_, i) => [i * 4096, 0, 100] as const));
    const picture = occupancyOf(mappings, [...Array(100).keys()], {
      columns: 1,
      mostRows: 30,
      firstNs: 0,
      lastNs: 100,
    });
    expect([picture.rows, picture.rowBytes]).toEqual([25, 16384]);
    expect([...picture.share].every((value) => value === 1)).toBe(true);
  });
});

describe("a report page", () => {
  test("needs nothing from outside, runs nothing, and says what was recorded", async () => {
    const page = reportPage("strict-net.dat.gz", await readRecording(await golden("strict-net.dat.gz")));
    expect(page).not.toMatch(/<script|https?:|src="(?!data:)|href="(?!data:)|@import|url\(/);
    expect(page).toContain("default-src 'none'");
    for (const word of ["0000:00:05.0", "3,672", "<svg", "data:image/png;base64,"]) expect(page).toContain(word);
  });

  test("escapes what the trace says", async () => {
    const evil = "<img src=x onerror=alert(1)>&\"'";
    const trace = await written([{ timeNs: 0, name: "dma_map_phys", address: 0x5000, device: evil }]);
    const page = reportPage(evil, await readRecording(trace));
    expect(page).not.toContain("<img");
    expect(page).toContain(escaped(evil));
  });

  test("its picture is a PNG that holds the values", () => {
    const png = strengthPng(3, 2, Uint8Array.of(0, 1, 2, 3, 4, 255), [1, 2, 3]);
    const at = Buffer.from(png).indexOf("IDAT");
    const length = new DataView(png.buffer, png.byteOffset).getUint32(at - 4);
    expect([...inflateSync(png.subarray(at + 4, at + 4 + length))]).toEqual([0, 0, 1, 2, 0, 3, 4, 255]);
  });

  const chromium = ["chromium-headless-shell", "chromium"].find((name) => spawnSync(name, ["--version"]).status === 0);
  test.skipIf(!chromium)(
    "is drawn by a browser, without a complaint (skipped where there is no chromium)",
    async () => {
      const target = join(folder, "report.html");
      await exportCommand(join(traces, "strict-inflight.dat.gz"), { html: target });
      const shot = join(folder, "report.png");
      const flags = [
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        "--window-size=1100,900",
        `--screenshot=${shot}`,
      ];
      const { stderr } = spawnSync(chromium!, [...flags, `file://${target}`], { encoding: "utf8", timeout: 50_000 });
      expect(existsSync(shot)).toBe(true);
      expect(stderr).not.toMatch(/CONSOLE/);
    },
  );
});

describe("dmalink export", () => {
  test("leaves nothing half written where it cannot write", async () => {
    const trace = join(traces, "strict-reload-nvme.dat.gz");
    await expect(exportCommand(trace, { html: join(folder, "none/report.html") })).rejects.toThrow(
      /cannot write .*none/,
    );
    await expect(exportCommand(trace, { parquet: join(traces, "README.md", "x") })).rejects.toThrow(
      /cannot write into/,
    );
  });
});
