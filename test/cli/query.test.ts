/** `dmalink query` and what `dmalink export` does where it cannot write. */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { exportCommand } from "../../src/apps/cli/commands/export.ts";
import { loadDuckDb, query } from "../../src/apps/cli/commands/query.ts";
import { EnvironmentError } from "../../src/apps/cli/exit-errors.ts";

const traces = join(import.meta.dirname, "../golden/traces");

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "dmalink-query-"));
});
afterAll(() => rmSync(folder, { recursive: true }));

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
    const docs = readFileSync(join(import.meta.dirname, "../../docs/export-and-query.md"), "utf8");
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
