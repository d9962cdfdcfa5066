/** `dmalink check` as a user runs it: what it prints, and its exit code. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

const program = new URL("../../dist/apps/cli/main.js", import.meta.url).pathname;
const traces = new URL("../golden/traces/", import.meta.url).pathname;
const snapshots = new URL("../golden/snapshots/", import.meta.url).pathname;
const run = (...args: string[]) => {
  const { status, stdout, stderr } = spawnSync(process.execPath, [program, "check", ...args], {
    encoding: "utf8",
    maxBuffer: 2 ** 26,
  });
  return { status, stdout, stderr };
};
let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "dmalink-check-"));
});
afterAll(() => rmSync(folder, { recursive: true }));
const file = (name: string, bytes: string | Uint8Array): string => {
  const path = join(folder, name);
  writeFileSync(path, bytes);
  return path;
};

/** A recorded trace in which one unmap, in the middle, is printed twice. */
function twice(): string {
  const lines = gunzipSync(readFileSync(`${traces}strict-rr4k-qd1.report.txt.gz`))
    .toString()
    .split("\n");
  const at = lines.findIndex((line, i) => i > 1000 && line.includes(" unmap:"));
  lines.splice(at + 2, 0, lines[at]!, lines[at + 1]!);
  return file("twice.txt", lines.join("\n"));
}

describe("dmalink check", () => {
  test("a clean trace: a summary, exit 0; lines of at most 80 columns", () => {
    const { status, stdout, stderr } = run(`${traces}strict-net.dat.gz`);
    expect([status, stderr]).toEqual([0, ""]);
    const said = stdout.replace(/\s+/g, " "); // where the lines break depends on where the file is
    expect(said).toContain("14,689 events");
    expect(said).toContain("no errors, no warnings");
  });

  test("a fault: what, where, by whom, what to do; exit 1; lines of at most 80 columns", () => {
    const { status, stdout } = run(twice(), "--rule", "double-unmap");
    expect(status).toBe(1);
    expect(stdout).toContain("1 error");
    expect(stdout).toMatch(/^error double-unmap$/m);
    expect(stdout).toMatch(/^ {4}unmapped again {2}\d+\.\d{6} s {2}CPU \d {2}\S+-\d+ +dma_unmap_phys$/m);
    expect(stdout).toContain("What to do: ");
    const [, ...lines] = stdout.split("\n"); // the first has the path
    for (const line of lines.filter((one) => !one.includes(folder))) expect(line.length).toBeLessThanOrEqual(80);
  });

  test("--json is dmalink.check/2: lists also where there is one trace", () => {
    const { status, stdout } = run(twice(), "--json");
    const { schema, summary, findings, traces } = JSON.parse(stdout);
    expect([status, schema, summary["double-unmap"], traces.length]).toEqual([1, "dmalink.check/2", 1, 1]);
    expect(traces[0]).toMatchObject({ file: join(folder, "twice.txt"), ambiguous: 0, mappings: expect.any(Number) });
    expect(findings[0].timeNs).toBe(findings[0].evidence.at(-1).timeNs);
    expect(findings[0]).toMatchObject({ rule: "double-unmap", severity: "error", iova: expect.stringMatching(/^0x/) });
  });

  test("--sarif is SARIF 2.1.0", () => {
    const { version, runs } = JSON.parse(run(twice(), "--sarif").stdout);
    expect([version, runs[0].results[0].ruleId]).toEqual(["2.1.0", "double-unmap"]);
  });

  test("--device keeps the findings of one, and refuses one that no event names", () => {
    expect(run(twice(), "--device", "0000:00:04.0").status).toBe(1);
    const { status, stdout, stderr } = run(twice(), "--device", "0000:00:07.0");
    expect([status, stdout]).toEqual([2, ""]);
    expect(stderr).toContain("there are 0000:00:04.0");
  });

  test("an unknown rule and no trace at all: one line, exit 2", () => {
    for (const args of [[twice(), "--rule", "nonsense"], []]) {
      const { status, stdout, stderr } = run(...args);
      expect([status, stdout]).toEqual([2, ""]);
      expect(stderr.trimEnd().split("\n")).toHaveLength(1);
    }
    expect(run(twice(), "--rule", "nonsense").stderr).toContain("double-unmap");
  });

  test("a cut file: with --best-effort what was read is judged without false errors, exit 2", () => {
    const whole = gunzipSync(readFileSync(`${traces}strict-mix7030.dat.gz`));
    const path = file("cut.dat", whole.subarray(0, whole.length - 100_000));
    expect(run(path).status).toBe(2);
    const { status, stdout } = run(path, "--best-effort");
    expect(status).toBe(2);
    expect(stdout).toContain("no errors");
  });

  test("a start state from a snapshot, and a clear refusal of one that is none", () => {
    const args = ["--snapshot", `${snapshots}legacy-idle.snap.gz`];
    expect(run(`${traces}strict-net.dat.gz`, ...args).status).toBe(0);
    const { status, stderr } = run(`${traces}strict-net.dat.gz`, "--dma-dump", file("dump", "no such thing\n"));
    expect(status).toBe(2);
    expect(stderr).toMatch(/dump: line 1 is no entry/);
  });

  test("a start state that is cut is refused without advice that this option does not take", () => {
    const whole = readFileSync(`${snapshots}legacy-idle.snap.gz`);
    const cut = file("cut.snap.gz", whole.subarray(0, whole.length / 2));
    for (const option of ["--snapshot", "--dma-dump"]) {
      const { status, stderr } = run(`${traces}strict-net.dat.gz`, option, cut);
      expect(status).toBe(2);
      expect(stderr).toMatch(/cut\.snap\.gz: the gzip stream is cut or damaged/);
      expect(stderr).not.toContain("best-effort");
    }
  });

  test("a trace in which nothing was mapped is not told to have no errors", () => {
    const events = ["1.000001: sched_switch: prev_comm=a", "1.000002: sched_switch: prev_comm=b"];
    const other = file("other.txt", ["cpus=1", ...events.map((event) => `   a-1 [000] ${event}`), ""].join("\n"));
    const alone = run(other);
    expect(alone.status).toBe(0);
    expect(alone.stdout.replace(/\s+/g, " ")).toContain("No mapping was recorded, so there is nothing to judge.");
    expect(alone.stdout).not.toContain("no errors");
    const both = run(other, `${traces}strict-net.dat.gz`).stdout;
    expect(both).toMatch(/other\.txt \(no mapping\) +2 /);
    expect(run(other, other).stdout).not.toContain("no errors");
    const report = spawnSync(process.execPath, [program, "export", other, "--html", "-"], { encoding: "utf8" }).stdout;
    expect(report).toContain("nothing to judge");
    expect(report).not.toContain("Nothing was found to be wrong");
  });

  test("the page tells a finding with the times and the device that check tells it with", () => {
    const page = spawnSync(process.execPath, [program, "export", twice(), "--html", "-"], { encoding: "utf8" }).stdout;
    const [, time] = /unmapped again {2}(\d+\.\d{6}) s/.exec(run(twice(), "--rule", "double-unmap").stdout)!;
    expect(page).toContain(`unmapped again at ${time} s, after `);
    expect(page).toContain("1 error, no warnings, ");
    const [head, ...events] = readFileSync(twice(), "utf8").split("\n");
    const ends = file("ends.txt", [head, ...events.filter((event) => event.includes("dma_unmap")), ""].join("\n"));
    const ended = spawnSync(process.execPath, [program, "export", ends, "--html", "-"], { encoding: "utf8" }).stdout;
    expect(ended).toContain("<li><span>devices</span><b>1</b>");
    expect(ended).toContain("1 piece of advice");
  });

  test("every rule that is named is in the document, with its severity", () => {
    const document = readFileSync(new URL("../../docs/analyze-a-trace.md", import.meta.url), "utf8");
    const { runs } = JSON.parse(run(twice(), "--sarif").stdout);
    const levels: Record<string, string> = { error: "error", warning: "warning", note: "advice" };
    for (const { id, defaultConfiguration, shortDescription } of runs[0].tool.driver.rules)
      expect(document).toContain(`| \`${id}\` | ${levels[defaultConfiguration.level]} | ${shortDescription.text} |`);
  });

  test("many traces on several workers: one table, in the order asked, the same findings as alone", () => {
    const names = readdirSync(traces)
      .filter((name) => name.endsWith(".dat.gz"))
      .slice(0, 6);
    const paths = names.map((name) => join(traces, name));
    const { status, stdout } = run(...paths, twice(), "--jobs", "2", "--json");
    const { schema, findings, summary, traces: checked } = JSON.parse(stdout);
    expect([status, schema]).toEqual([1, "dmalink.check/2"]);
    expect(checked.map((one: { file: string }) => one.file)).toEqual([...paths, join(folder, "twice.txt")]);
    expect(summary["double-unmap"]).toBe(1);
    const alone = JSON.parse(run(paths[0]!, "--json").stdout);
    expect(alone.traces).toEqual([checked[0]]);
    expect(alone.findings).toEqual(findings.filter(({ file }: { file: string }) => file === paths[0]));
    expect(run(...paths.slice(0, 3)).stdout).toMatch(/^3 traces, [\d,]+ events: no errors/);
  });

  test("many traces of which one cannot be read: the others are told, exit 2", () => {
    const { status, stdout, stderr } = run(`${traces}strict-net.dat.gz`, join(folder, "none.dat"));
    expect(status).toBe(2);
    expect(stdout).toContain("strict-net.dat.gz");
    expect(stderr).toMatch(/none\.dat: no such file/);
  });
});
