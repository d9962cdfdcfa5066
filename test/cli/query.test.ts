/** `dmalink query` and what `dmalink export` does where it cannot write. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { EnvironmentError } from "../../src/apps/cli/exit-errors.ts";
import { loadDuckDb } from "../../src/apps/cli/query/duckdb.ts";
import { dmalink } from "./in-process.ts";

const traces = join(import.meta.dirname, "../golden/traces");

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "dmalink-query-"));
});
afterAll(() => rmSync(folder, { recursive: true }));

describe("dmalink query", () => {
  const ask = async (trace: string, ...sql: string[]): Promise<string> => {
    const { code, out, err } = await dmalink("query", join(traces, trace), ...sql, "--json");
    expect([code, err]).toEqual([0, ""]);
    return out;
  };

  test("answers over the four tables; addresses are hex, other numbers are numbers", async () => {
    const answer = JSON.parse(
      await ask(
        "strict-sw1m-probes.dat.gz",
        "select device, kind, count(*) as n, sum(length) as bytes, max(iova) as top from mappings group by all",
      ),
    );
    expect(answer).toMatchObject({
      schema: "dmalink.query/2",
      rows: [{ device: "0000:00:04.0", kind: "two-step", n: 320, bytes: 41_943_040, top: "0xfff80000" }],
    });
  });

  test("the examples of the documentation run", async () => {
    const docs = readFileSync(join(import.meta.dirname, "../../docs/export-and-query.md"), "utf8");
    const examples = [...docs.matchAll(/```sql\n([\s\S]*?)```/g)].map(([, sql]) => sql!);
    expect(examples.length).toBeGreaterThanOrEqual(5);
    for (const sql of examples) expect(JSON.parse(await ask("strict-net.dat.gz", sql)).rows, sql).toBeInstanceOf(Array);
  });

  test("a wrong question is one clear error that names the tables", async () => {
    const { code, err } = await dmalink(
      "query",
      join(traces, "strict-reload-nvme.dat.gz"),
      "select nope from mappings",
    );
    expect(code).toBe(2);
    expect(err).toMatch(/nope[\s\S]*events, mappings, requests, findings/);
  });

  test("the question may be in a file; the answer may be CSV, exact and quoted where it must be", async () => {
    const trace = join(traces, "strict-sw1m-probes.dat.gz");
    const question = join(folder, "question.sql");
    writeFileSync(
      question,
      "-- the highest\nselect 'a \"b\", c' as text, max(iova) as top, 0.1 + 0.2 as sum, null as none\nfrom mappings;\n",
    );
    expect(await dmalink("query", trace, "-f", question, "--csv")).toEqual({
      code: 0,
      out: 'text,top,sum,none\n"a ""b"", c",0xfff80000,0.3,\n',
      err: "",
    });
    const word = await dmalink("query", trace, "select count(*) as n from mappings", "--csv");
    expect(word.out).toBe("n\n320\n");
  });

  test.each([
    [["select 1", "-f", "x"], /asked twice/],
    [["select 1", "--csv", "--json"], /one form/],
    [["-f", "no such file"], /no such file: no such file/],
  ])("%j is refused", async (words, message) => {
    const { code, out, err } = await dmalink("query", join(traces, "strict-reload-nvme.dat.gz"), ...words);
    expect([code, out]).toEqual([2, ""]);
    expect(err).toMatch(message);
  });

  test("without SQL it lists the tables; without DuckDB it says what to install", async () => {
    expect(JSON.parse(await ask("none"))).toMatchObject({ schema: "dmalink.columns/1" });
    const missing = loadDuckDb(() => Promise.reject(new Error("Cannot find package '@duckdb/node-api'")));
    await expect(missing).rejects.toThrow(EnvironmentError);
    await expect(missing).rejects.toThrow(/npm install @duckdb\/node-api.*--parquet/);
  });
});

describe("a question", () => {
  const trace = join(traces, "strict-reload-nvme.dat.gz");

  test.each([
    (file: string) => `copy (select 1) to '${file}'`,
    () => "select * from read_text('/etc/hostname')",
    () => "select * from read_csv('http://127.0.0.1:9/x')",
    (file: string) => `attach '${file}'`,
    () => "install httpfs",
    () => "select 1; load httpfs; select 2",
    () => "set enable_external_access = true",
    () => "set allowed_directories = ['/']",
    () => "select * from glob('/etc/*')",
    () => "export database '/tmp/dmalink-nowhere'",
  ])("reaches neither files nor the network: %#", async (sql) => {
    const file = join(folder, "out.csv");
    const { code, out, err } = await dmalink("query", trace, sql(file));
    expect([code, out]).toEqual([2, ""]);
    expect(err).toMatch(/Permission Error|has been locked|extensions are neither/);
    expect(readdirSync(folder)).not.toContain("out.csv");
  });

  test("reaches files where that is allowed, and still no network", async () => {
    const file = join(folder, "allowed.csv");
    expect((await dmalink("query", trace, `copy (select 7 as a) to '${file}'`, "--allow-files")).code).toBe(0);
    expect(readFileSync(file, "utf8")).toBe("a\n7\n");
    const { out } = await dmalink("query", trace, `select a from read_csv('${file}')`, "--allow-files", "--csv");
    expect(out).toBe("a\n7\n");
    for (const sql of ["install httpfs", "select * from read_csv('http://127.0.0.1:9/x')"])
      expect((await dmalink("query", trace, sql, "--allow-files")).code).toBe(2);
  });

  test("may use a table that it made, and sort more than fits in memory into its own folder", async () => {
    const { code, out } = await dmalink(
      "query",
      trace,
      "create table t as select 41 as n; update t set n = n + 1; select n from t",
      "--csv",
    );
    expect([code, out]).toEqual([0, "n\n42\n"]);
  });

  test("whose columns have one name keeps all of them", async () => {
    const { out } = await dmalink("query", trace, "select 1 as a, 2 as a, 3 as a_1", "--json");
    expect(JSON.parse(out)).toMatchObject({ rows: [{ a: 1, a_2: 2, a_1: 3 }] });
    expect(JSON.parse(out).columns.map(({ name }: { name: string }) => name)).toEqual(["a", "a_2", "a_1"]);
  });
});

describe("dmalink export", () => {
  test("leaves nothing half written where it cannot write", async () => {
    const trace = join(traces, "strict-reload-nvme.dat.gz");
    expect((await dmalink("export", trace, "--html", join(folder, "none/report.html"))).err).toMatch(
      /cannot write .*none/,
    );
    expect((await dmalink("export", trace, "--parquet", join(traces, "README.md", "x"))).err).toMatch(
      /cannot write into/,
    );
  });
});
