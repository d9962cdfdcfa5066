/** Folders of traces for check and query, and the tables that a query keeps. */
import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeEach, describe, expect, test } from "vitest";
import { CacheEntry } from "../../src/apps/cli/query/cache.ts";
import { dmalink } from "./in-process.ts";

const traces = join(import.meta.dirname, "../golden/traces");
const home = mkdtempSync(join(tmpdir(), "dmalink-folders-"));
afterAll(() => rmSync(home, { recursive: true }));

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(home, "traces-"));
  copyFileSync(join(traces, "strict-reload-nvme.dat.gz"), join(folder, "b.dat.gz"));
  mkdirSync(join(folder, "more"));
  copyFileSync(join(traces, "strict-sw1m-probes.dat.gz"), join(folder, "more", "a.dat.gz"));
  writeFileSync(join(folder, "notes.md"), "# What was recorded\n");
  writeFileSync(join(folder, ".hidden"), "nothing");
});

const LEFT_OUT = "1 file is no trace and was left out: ";

describe("a folder of traces", () => {
  test("is checked whole, folders in it too; what is no trace is left out and said", async () => {
    const { code, out, err } = await dmalink("check", folder, "--json", "--jobs", "1");
    expect([code, err]).toEqual([0, `${LEFT_OUT}${join(folder, "notes.md")}\n`]);
    const { traces: checked } = JSON.parse(out);
    expect(checked.map(({ file }: { file: string }) => file)).toEqual([
      join(folder, "b.dat.gz"),
      join(folder, "more/a.dat.gz"),
    ]);
  });

  test("is asked as one, each row with its file", async () => {
    const sql = "select file, count(*) as n from mappings group by file order by file";
    const { code, out, err } = await dmalink("query", folder, sql, "--json");
    expect([code, err]).toEqual([0, `${LEFT_OUT}${join(folder, "notes.md")}\n`]);
    expect(JSON.parse(out).rows).toEqual([
      { file: join(folder, "b.dat.gz"), n: expect.any(Number) },
      { file: join(folder, "more/a.dat.gz"), n: 320 },
    ]);
  });

  test("without a trace is an error, and a file that was named by itself is never left out", async () => {
    rmSync(join(folder, "b.dat.gz"));
    rmSync(join(folder, "more"), { recursive: true });
    expect(await dmalink("query", folder, "select 1")).toMatchObject({
      code: 2,
      err: expect.stringContaining("no trace"),
    });
    expect((await dmalink("check", folder)).code).toBe(2);
    const named = await dmalink("check", join(folder, "notes.md"));
    expect([named.code, named.err]).toEqual([2, expect.stringContaining("notes.md")]);
    rmSync(join(folder, "notes.md"));
    expect((await dmalink("check", folder)).err).toContain("no file is in this folder");
  });
});

describe("the tables that a query keeps", () => {
  const entries = (): string[] => {
    try {
      return readdirSync(join(process.env.XDG_CACHE_HOME!, "dmalink", "tables"));
    } catch {
      return [];
    }
  };
  const ask = async (...more: string[]) =>
    dmalink("query", join(folder, "b.dat.gz"), "select count(*) as n from events", "--json", ...more);

  test("are used while the trace stays as it is, and say the same, also what was not understood", async () => {
    const before = entries().length;
    const first = await ask();
    expect(entries()).toHaveLength(before + 1);
    expect(await ask()).toEqual(first);
    expect(entries()).toHaveLength(before + 1);
  });

  test("are made anew when the trace was changed, replaced or touched, and the old ones are gone", async () => {
    const path = join(folder, "b.dat.gz");
    const before = entries().length;
    await ask();
    for (const change of [
      () => copyFileSync(join(traces, "strict-sw1m-probes.dat.gz"), path),
      () => utimesSync(path, new Date(0), new Date(0)),
    ]) {
      const [was] = [CacheEntry.of(path, {})!.folder];
      change();
      expect(CacheEntry.of(path, {})!.folder).not.toBe(was);
      await ask();
      expect(entries()).toHaveLength(before + 1);
    }
    const { rows } = JSON.parse((await ask()).out);
    const { rows: fresh } = JSON.parse((await ask("--no-cache")).out);
    expect(rows).toEqual(fresh);
  });

  test("of a part are others than those of the whole", async () => {
    const part = JSON.parse((await ask("--to", "+1ms")).out).rows[0].n;
    expect(part).toBeLessThan(JSON.parse((await ask()).out).rows[0].n);
  });

  test("are not kept with --no-cache, nor where the cache cannot be written", async () => {
    const before = entries().length;
    expect((await ask("--no-cache")).code).toBe(0);
    expect(entries()).toHaveLength(before);
    const { XDG_CACHE_HOME: was } = process.env;
    process.env.XDG_CACHE_HOME = join(folder, "notes.md");
    try {
      expect((await ask()).code).toBe(0);
    } finally {
      process.env.XDG_CACHE_HOME = was;
    }
  });
});
