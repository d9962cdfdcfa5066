/** The program as a user runs it: built, from a shell, judged by what it prints and its exit code. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { gunzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

const program = new URL("../../dist/apps/cli/main.js", import.meta.url).pathname;
const traces = new URL("../golden/traces/", import.meta.url).pathname;
const run = (...args: string[]) => {
  const { status, stdout, stderr } = spawnSync(process.execPath, [program, ...args], { encoding: "utf8" });
  return { status, stdout, stderr };
};
let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "dmalink-cli-"));
});
afterAll(() => rmSync(folder, { recursive: true }));

describe("dmalink", () => {
  test("--help names the commands and the exit codes", () => {
    const { status, stdout } = run("--help");
    expect(status).toBe(0);
    for (const word of ["stats", "compare", "Exit codes", "130 interrupted"]) expect(stdout).toContain(word);
  });

  test("--help is quick: what the program loads before it knows its command is small, and nobody else's", () => {
    const loaded = new Map<string, number>();
    const load = (path: string): void => {
      if (loaded.has(path)) return;
      const text = readFileSync(path, "utf8");
      loaded.set(path, text.length);
      // The file that is run imports the program when it runs, to tell a machine that cannot from a finding.
      const found = path === program ? /import\("([^"]+)"\)/g : /^import (?:[^"]* from )?"([^"]+)";$/gm;
      for (const [, specifier] of text.matchAll(found))
        if (specifier!.startsWith(".")) load(join(dirname(path), specifier!));
        else expect(specifier).toMatch(/^node:/);
    };
    load(program);
    expect(loaded.size).toBeGreaterThan(3);
    expect([...loaded.values()].reduce((sum, size) => sum + size, 0)).toBeLessThan(120_000);
  });

  test("nothing asked: help, exit 2; an unknown command or option value: one line that says so, exit 2", () => {
    expect(run().status).toBe(2);
    for (const args of [
      ["frobnicate"],
      ["compare", "x", "--iommu", "foo"],
      ["compare", "x", "--seed", "z"],
      ["compare", "x", "--what-if", "pigs-fly"],
      ["compare", "x", "--as", "floppy"],
      ["compare", "x", "--request-cap", "5000"],
    ]) {
      const { status, stdout, stderr } = run(...args);
      expect([status, stdout]).toEqual([2, ""]);
      expect(stderr).toMatch(/^dmalink: .*\n$/);
    }
  });

  test.each([
    [["check", "x", "--jobs", "-1"], /--jobs -1: a whole number from 1 on/],
    [["compare", "x", "--seed", "-1"], /--seed -1: a whole number from 0 on/],
    [["compare", "x", "--request-cap", "-1"], /--request-cap -1: a size such as/],
    [["sim", "--seed", "-1"], /--seed -1: a whole number from 0 on/],
    [["sim", "--seeds", "5..1"], /--seeds 5\.\.1: A\.\.B with A up to B/],
    [["sim", "--minutes", "-1"], /--minutes -1: a number above 0/],
    [["sim", "--seed", "2", "--seeds", "1..3"], /--seed and --seeds/],
    [["record", "--for", "-1"], /--for -1: a time such as/],
    [["check", "x", "--root", "0x1000"], /give --snapshot too/],
  ])("%j: one line that says what is wrong with the value, exit 2", (args, message) => {
    const { status, stdout, stderr } = run(...args);
    expect([status, stdout]).toEqual([2, ""]);
    expect(stderr).toMatch(message);
    expect(stderr).not.toContain("Unknown option");
  });

  test("a word behind -- is no option, nor is a file behind a switch its value", () => {
    const trace = `${traces}strict-reload-nvme.dat.gz`;
    for (const args of [
      ["stats", "--", trace],
      ["stats", "--best-effort", trace],
      ["--json", "stats", trace],
    ])
      expect(run(...args).status, args.join(" ")).toBe(0);
    expect(run("stats", "--", "--json").stderr).toMatch(/^dmalink: --json: no such file\n$/);
  });

  test.each([
    ["a file that is not there", () => join(folder, "none.dat"), /no such file/],
    ["an empty file", () => file("empty", ""), /not a trace|empty/],
    ["a foreign file", () => file("foreign", "hello, world\n".repeat(100)), /not a trace/],
    ["a cut gzip", () => file("cut.gz", readFileSync(`${traces}strict-rr4k-qd1.dat.gz`).subarray(0, 9000)), /gzip/],
  ])("%s: one clear line, exit 2", (_, path, message) => {
    const { status, stdout, stderr } = run("stats", path());
    expect([status, stdout]).toEqual([2, ""]);
    expect(stderr).toMatch(message);
    expect(stderr.trimEnd().split("\n")).toHaveLength(1);
  });

  test("a cut trace.dat: the offset; with --best-effort what was read before it, and exit 2 all the same", () => {
    const whole = gunzipSync(readFileSync(`${traces}strict-mix7030.dat.gz`)); // version 6: the events come last
    const path = file("cut.dat", whole.subarray(0, whole.length - 50_000));
    const strict = run("stats", path);
    expect(strict.status).toBe(2);
    expect(strict.stderr).toMatch(/offset \d+/);
    const best = run("stats", path, "--best-effort", "--json");
    expect(best.status).toBe(2);
    expect(best.stderr).toMatch(/damaged at offset \d+ \(0x[0-9a-f]+\): .*; what was read before that is reported\n$/);
    const [{ events }] = JSON.parse(best.stdout).traces;
    expect(Object.keys(events).length).toBeGreaterThan(0);
  });

  const file = (name: string, content: string | Uint8Array): string => {
    const path = join(folder, name);
    writeFileSync(path, content);
    return path;
  };
});

describe("dmalink stats", () => {
  test("--json has the schema, the counts of the recording, and lists its devices", () => {
    const { status, stdout } = run("stats", `${traces}strict-sw1m-probes.dat.gz`, "--json");
    expect(status).toBe(0);
    const meta = JSON.parse(readFileSync(`${traces}strict-sw1m-probes.meta.json`, "utf8"));
    const { schema, traces: list } = JSON.parse(stdout);
    const [result] = list;
    expect([schema, list.length]).toEqual(["dmalink.stats/2", 1]);
    expect(result).toMatchObject({ events: meta.events, lost: 0, ambiguous: 0 });
    expect(result.devices).toMatchObject([{ name: "0000:00:04.0", maps: 320, unmaps: 320, liveAtEnd: 0 }]);
  });

  test("text lines up and fits 120 columns", () => {
    const { stdout } = run("stats", `${traces}strict-net.dat.gz`);
    expect(stdout).toContain("device 0000:00:05.0");
    for (const line of stdout.split("\n").slice(1)) expect(line.length).toBeLessThanOrEqual(200);
  });
});

describe("dmalink compare", () => {
  test("--json has the schema and the eight strategies, no mismatch, and the kernel's own count", () => {
    const { status, stdout } = run("compare", `${traces}strict-rr4k-qd1.dat.gz`, "--json");
    expect(status).toBe(0);
    const { schema, traces: list } = JSON.parse(stdout);
    const [result] = list;
    expect([schema, list.length]).toEqual(["dmalink.compare/2", 1]);
    expect(result).toMatchObject({ requests: 2500, segments: 2500, mismatches: 0 });
    expect(result.strategies.map(({ name }: { name: string }) => name)).toEqual([
      "one-shot",
      "coalesced",
      "scatterlist",
      "two-step",
      "two-step-vector",
      "batch",
      "linear",
      "premapped",
    ]);
    expect(result.kernel).toMatchObject({ unmapEvents: 2500, invalidations: 2500, equal: true });
  });

  test("reads text from standard input", () => {
    const text = gunzipSync(readFileSync(`${traces}strict-rr4k-qd1.report.txt.gz`));
    const { status, stdout } = spawnSync(process.execPath, [program, "compare", "-", "--json"], { input: text });
    expect(status).toBe(0);
    expect(JSON.parse(stdout.toString()).traces[0]).toMatchObject({ requests: 2500, mismatches: 0 });
  });
});

describe("dmalink export and query", () => {
  test("every export in one run, and an answer in SQL", () => {
    const trace = `${traces}strict-reload-nvme.dat.gz`;
    const to = { perfetto: join(folder, "t.pftrace"), parquet: join(folder, "tables"), html: join(folder, "r.html") };
    const exported = run("export", trace, ...Object.entries(to).flatMap(([name, at]) => [`--${name}`, at]), "--json");
    expect(exported.status).toBe(0);
    const { schema, traces: list } = JSON.parse(exported.stdout);
    const [{ perfetto, parquet }] = list;
    expect([schema, perfetto.slices, parquet.rows.mappings]).toEqual(["dmalink.export/2", 122, 122]);
    expect(readFileSync(to.html, "utf8")).toMatch(/^<!doctype html>/);
    const { status, stdout } = run("query", trace, "select count(*) as n from mappings");
    expect([status, stdout]).toEqual([0, "n\n122\n"]);
  });

  test("nothing asked for, or a wrong question: one clear message, exit 2", () => {
    const trace = `${traces}strict-reload-nvme.dat.gz`;
    expect(run("export", trace)).toMatchObject({ status: 2, stdout: "" });
    const asked = run("query", trace, "select nope");
    expect([asked.status, asked.stdout]).toEqual([2, ""]);
    expect(asked.stderr).toContain("events, mappings, requests, findings");
  });
});

describe("dmalink record", () => {
  test("--print-script gives a script that a shell can read, and records nothing", () => {
    const { status, stdout } = run("record", "--print-script", "--probes", "--for", "2s", "--device", "00:04.0");
    expect(status).toBe(0);
    expect(spawnSync("sh", ["-n"], { input: stdout }).status).toBe(0);
    expect(stdout).toContain('device == "0000:00:04.0"');
  });

  test.each([
    ["--for", "soon"],
    ["--for", "0s"],
    ["--buffer", "much"],
    ["--buffer", "1K"],
  ])("%s %s is refused before anything is done", (option, value) => {
    expect(run("record", "--print-script", option, value)).toMatchObject({ status: 2, stdout: "" });
  });
});
