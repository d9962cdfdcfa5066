/** `--from` and `--to`: every command that reads a trace takes a part of it, and all take the same. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { COMMANDS } from "../../src/apps/cli/commands/index.ts";
import { dmalink } from "./in-process.ts";

const trace = join(import.meta.dirname, "../golden/traces/strict-rr4k-qd1.dat.gz");
let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "dmalink-part-"));
});
afterAll(() => rmSync(folder, { recursive: true }));

/** Events that a command read. */
const EVENTS: Readonly<Record<string, (...part: string[]) => Promise<number>>> = {
  check: async (...part) => JSON.parse((await dmalink("check", trace, ...part, "--json")).out).traces[0].events,
  stats: async (...part) => JSON.parse((await dmalink("stats", trace, ...part, "--json")).out).traces[0].eventTotal,
  export: async (...part) =>
    JSON.parse((await dmalink("export", trace, ...part, "--parquet", folder, "--json")).out).traces[0].parquet.rows
      .events,
  query: async (...part) =>
    JSON.parse((await dmalink("query", trace, "select count(*) as n from events", ...part, "--json")).out).rows[0].n,
};

describe("a part of a trace by time", () => {
  test("can be asked of every command that reads one", () => {
    const readers = COMMANDS.filter(({ options }) => "bestEffort" in options);
    expect(readers.map(({ name }) => name).sort()).toEqual(["check", "compare", "diff", "export", "query", "stats"]);
    for (const { options } of readers) expect(Object.keys(options)).toEqual(expect.arrayContaining(["from", "to"]));
  });

  test.each(Object.keys(EVENTS))("%s: two parts are the whole, and no event is in both", async (name) => {
    const [whole, before, after] = [
      await EVENTS[name]!(),
      await EVENTS[name]!("--to", "+40ms"),
      await EVENTS[name]!("--from", "+40ms"),
    ];
    expect(whole).toBe(10_000);
    expect(before).toBeGreaterThan(100);
    expect(after).toBeGreaterThan(100);
    expect(before + after).toBe(whole);
  });

  test("compare replays what began in it", async () => {
    const requests = async (...part: string[]): Promise<number> =>
      JSON.parse((await dmalink("compare", trace, ...part, "--json")).out).traces[0].requests;
    const [before, after] = [await requests("--to", "+40ms"), await requests("--from", "+40ms")];
    expect(before + after).toBe(2500);
  });

  test("without an event in it is refused with the times that there are; what is no time, with what is one", async () => {
    const empty = await dmalink("stats", trace, "--from", "+1m");
    expect([empty.code, empty.out]).toEqual([2, ""]);
    expect(empty.err).toMatch(/no event lies between --from and --to: the first is at \d+\.\d{6} s/);
    expect((await dmalink("check", trace, "--to", "noon")).err).toMatch(/--to noon: seconds as the trace prints them/);
  });
});
