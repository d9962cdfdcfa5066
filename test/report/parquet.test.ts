/** Parquet files of written and recorded traces, judged by a reader that is not ours. */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { asyncBufferFromFile, parquetMetadataAsync, parquetReadObjects, parquetSchema } from "hyparquet";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Outputs } from "../../src/apps/cli/files/output.ts";
import { claimTables, type TableOutputs, writeTables } from "../../src/apps/cli/files/table-files.ts";
import { UndoOnExit } from "../../src/apps/cli/files/undo-on-exit.ts";
import {
  mappingRows,
  type Recording,
  readRecording,
  requestRows,
  TABLE_NAMES,
  TABLES,
} from "../../src/report/index.ts";
import { golden, RECORDINGS, written } from "./written-trace.ts";

const tablesIn = (folder: string): TableOutputs => claimTables(folder, new Outputs(new UndoOnExit()));

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "dmalink-report-"));
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
    const { rows } = await writeTables(trace, tablesIn(target));
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
    await writeTables(await golden("strict-reload-nvme.dat.gz"), tablesIn(target));
    expect(readdirSync(target).sort()).toEqual(TABLE_NAMES.map((name) => `${name}.parquet`).sort());
    const docs = readFileSync(join(import.meta.dirname, "../../docs/export-and-query.md"), "utf8");
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
      const { recording, rows } = await writeTables(await golden(name), tablesIn(target));
      expect(rows).toMatchObject({
        mappings: recording.mappings.count,
        requests: recording.requests.count,
        findings: recording.result.findings.length,
      });
      const meta = JSON.parse(readFileSync(join(RECORDINGS, name.replace(".dat.gz", ".meta.json")), "utf8"));
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
    await writeTables(await golden("lazy-sw1m-flush.dat.gz"), tablesIn(target));
    const [flush] = (await readTable(target, "events")).filter(({ name }) => name === "cache_tag_flush_range");
    expect(JSON.parse(flush!.fields as string)).toMatchObject({ start: 0, type: expect.anything() });
  });
});
