/** `--device`, `--task`, `--cpu`: every command that reads a trace takes them, and all mean the same mappings. */
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { COMMANDS } from "../../src/apps/cli/commands/index.ts";
import { dmalink } from "./in-process.ts";

const traces = join(import.meta.dirname, "../golden/traces");
const trace = join(traces, "strict-net.dat.gz");

const json = async (...words: string[]) => JSON.parse((await dmalink(...words, "--json")).out);

/** Mappings that a command found. */
const MAPPINGS: Readonly<Record<string, (...selected: string[]) => Promise<number>>> = {
  check: async (...selected) => (await json("check", trace, ...selected)).traces[0].mappings,
  stats: async (...selected) => {
    const [{ devices }] = (await json("stats", trace, ...selected)).traces;
    return devices.reduce((sum: number, { maps }: { maps: number }) => sum + maps, 0);
  },
  query: async (...selected) =>
    (await json("query", trace, "select count(*) as n from mappings where start_ns is not null", ...selected)).rows[0]
      .n,
  diff: async (...selected) => (await json("diff", trace, trace, ...selected)).after.mappings,
};

/** What the table says that each selection has. */
const asked = async (where: string): Promise<number> =>
  (await json("query", trace, `select count(*) as n from mappings where start_ns is not null and ${where}`)).rows[0].n;

describe("a selection of mappings", () => {
  test("can be asked of every command that reads a trace", () => {
    for (const { options, name } of COMMANDS.filter((one) => "bestEffort" in one.options))
      expect(Object.keys(options), name).toEqual(expect.arrayContaining(["device", "task", "cpu"]));
  });

  test.each([
    ["--device", "0000:00:05.0", "device = '0000:00:05.0'"],
    ["--cpu", "1", "cpu = 1"],
    ["--cpu", "0-1", "true"],
  ])("%s %s means the same by all of them", async (option, value, where) => {
    const expected = await asked(where);
    expect(expected).toBeGreaterThan(50);
    for (const [name, mappings] of Object.entries(MAPPINGS)) expect(await mappings(option, value), name).toBe(expected);
  });

  test("parts by CPU and by task are the whole, and a mapping that ends on another CPU is no leak", async () => {
    const { rows } = await json(
      "query",
      trace,
      "select task, pid, count(*) as n from mappings group by all order by n desc",
    );
    expect(rows.length).toBeGreaterThan(1);
    const [{ task, pid }] = rows;
    const byName = await asked(`task = '${task}'`);
    expect(await MAPPINGS.stats!("--task", task)).toBe(byName);
    expect(await MAPPINGS.check!("--task", `${task}-${pid}`)).toBe(await asked(`task = '${task}' and pid = ${pid}`));
    const parts = [await json("check", trace, "--cpu", "0"), await json("check", trace, "--cpu", "1")];
    expect(parts.map(({ traces: [{ mappings }] }) => mappings).reduce((a, b) => a + b)).toBe(await MAPPINGS.check!());
    for (const { severities } of parts) expect(severities.error).toBe(0);
  });

  test("is said by every output, in words and as data", async () => {
    const words = "Mappings of 0000:00:05.0, on CPU 1 only";
    for (const name of ["check", "stats", "compare", "diff"]) {
      const both = name === "diff" ? [trace, trace] : [trace];
      const { out } = await dmalink(name, ...both, "--device", "00:05.0", "--cpu", "1");
      expect(out.replace(/\s+/g, " "), name).toContain(words);
    }
    expect((await json("stats", trace, "--cpu", "1")).traces[0].selection).toEqual({ cpus: [1] });
  });

  test("of what is not there is refused, with what there is", async () => {
    const device = await dmalink("stats", trace, "--device", "0000:00:1f.0");
    expect([device.code, device.err]).toEqual([
      2,
      expect.stringContaining("no event names it; there are 0000:00:05.0"),
    ]);
    const task = await dmalink("compare", trace, "--task", "nobody");
    expect([task.code, task.err]).toEqual([2, expect.stringContaining("--task nobody: no mapping began there")]);
    expect((await dmalink("stats", trace, "--cpu", "3-1")).err).toContain("a range such as 0-3");
  });
});
