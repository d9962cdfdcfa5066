/** What people have, given to the program: it is read, or named; and what was not understood is in every answer. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

const program = new URL("../../dist/apps/cli/main.js", import.meta.url).pathname;
const cases = new URL("../golden/cases/", import.meta.url).pathname;
const run = (...args: string[]) => spawnSync(process.execPath, [program, ...args], { encoding: "utf8" });
const summaryOf = (...args: string[]): object => JSON.parse(run("check", ...args, "--json").stdout).summary;
let folder = "";
let half = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "dmalink-forms-"));
  half = join(folder, "half.txt");
  const line = "     fio-7     [000]     1.000000: map: IOMMU: iova=0x1000 - 0x2000 paddr=0x1000 size=4096\n";
  writeFileSync(half, `cpus=1\n${line}what is this\n`);
  writeFileSync(join(folder, "perf.data"), gunzipSync(readFileSync(`${cases}53-perf.data.gz`)));
});
afterAll(() => rmSync(folder, { recursive: true }));

describe("one recording", () => {
  test.each(["70-report-plain.txt.gz", "71-report-ts-diff.txt.gz", "72-report-latency.txt.gz", "73-report-raw.txt.gz"])(
    "has the same errors printed as %s",
    (name) => {
      expect(summaryOf(`${cases}${name}`)).toEqual({ "size-mismatch": 1, "map-over-live": 1 });
    },
  );

  test("of scatterlists has those of its trace.dat in a report that could not format them", () => {
    const binary = summaryOf(`${cases}84-map-sg-7.2.dat.gz`);
    expect(binary).toMatchObject({ leak: 1, "direction-mismatch": 1 });
    expect(summaryOf(`${cases}85-map-sg-7.2-report.txt.gz`)).toEqual(binary);
  });
});

describe("what was not understood", () => {
  const said = /1 line of an unknown form, line 3: what is this/;

  test("is in the text, where no errors does not stand alone", () => {
    const { stdout } = run("check", half);
    expect(stdout.replaceAll(/\s+/g, " ")).toMatch(/no errors.* in what was understood: not all of the file was/);
    expect(stdout.replaceAll(/\s+/g, " ")).toMatch(said);
  });

  test("is in the JSON", () => {
    expect(JSON.parse(run("check", half, "--json").stdout).traces[0].remarks).toEqual([
      expect.objectContaining({ code: "unknown-line", count: 1, line: 3, message: expect.stringMatching(said) }),
    ]);
  });

  test("is in the SARIF, as a warning of the tool", () => {
    const [{ invocations }] = JSON.parse(run("check", half, "--sarif").stdout).runs;
    expect(invocations[0].toolExecutionNotifications).toEqual([
      expect.objectContaining({ level: "warning", message: { text: expect.stringMatching(said) } }),
    ]);
  });

  test("is said beside the answer of stats", () => {
    expect(run("stats", half).stderr).toMatch(said);
  });
});

describe("a file", () => {
  test.each(["perf.data", "perf.data on a pipe"])("that is %s is read", (way) => {
    const path = join(folder, "perf.data");
    const input = way === "perf.data" ? {} : { input: readFileSync(path) };
    const args = [program, "check", way === "perf.data" ? path : "-"];
    expect(spawnSync(process.execPath, args, { encoding: "utf8", ...input }).stdout).toMatch(
      /: perf\.data, 136 events/,
    );
  });

  test("whose clock counts is not given a duration", () => {
    const { stdout } = run("check", `${cases}97b-clock-counter.txt.gz`);
    expect(stdout).toMatch(/504\s+events\s+without\s+times/);
    expect(stdout).not.toMatch(/ ns\b/);
  });

  test.each([
    ["a folder", "stats", () => folder, /is a folder: name a file in it \(check and query take folders\)/],
    ["what bpftrace printed", "check", () => `${cases}51-bpftrace.txt.gz`, /the output of bpftrace/],
  ])("that is %s is named", (_name, command, path, message) => {
    const { status, stderr } = run(command, path());
    expect(status).toBe(2);
    expect(stderr).toMatch(message);
  });
});
