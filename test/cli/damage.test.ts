/** A damaged trace never looks clean: each report says what it lacks. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

const program = new URL("../../dist/apps/cli/main.js", import.meta.url).pathname;
const traces = new URL("../golden/traces/", import.meta.url).pathname;
const run = (...args: string[]) => spawnSync(process.execPath, [program, ...args], { encoding: "utf8" });
const good = `${traces}strict-net.dat.gz`;
let folder = "";
let cut = "";
let foreign = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "dmalink-damage-"));
  cut = join(folder, "cut.dat");
  const whole = gunzipSync(readFileSync(`${traces}strict-mix7030.dat.gz`));
  writeFileSync(cut, whole.subarray(0, whole.length - 100_000));
  foreign = join(folder, "foreign.dat");
  writeFileSync(foreign, "hello, world\n".repeat(100));
});
afterAll(() => rmSync(folder, { recursive: true }));

const DAMAGE = { message: expect.stringMatching(/offset \d+/) };

describe("a damaged trace, read with --best-effort", () => {
  test.each([
    ["stats", [], []],
    ["check", [], []],
    ["compare", [], []],
    ["query", ["select 1"], []],
    ["export", [], ["--html", "page.html"]],
  ])("%s --json says where it is damaged, exit 2; of a whole one it does not", (command, after, options) => {
    const asked = options.map((option) => (option.startsWith("-") ? option : join(folder, option)));
    const { status, stdout } = run(command, cut, ...after, ...asked, "--best-effort", "--json");
    expect(status).toBe(2);
    expect(JSON.parse(stdout).traces[0].damage).toMatchObject(DAMAGE);
    expect(JSON.parse(run(command, good, ...after, ...asked, "--json").stdout).traces[0]).not.toHaveProperty("damage");
  });

  test("the page says it above all numbers", () => {
    const page = join(folder, "page.html");
    expect(run("export", cut, "--html", page, "--best-effort").status).toBe(2);
    const text = readFileSync(page, "utf8");
    expect(text).toMatch(/role="alert"><b>The trace is damaged:<\/b> .*offset \d+.*<\/p>\n<ul class="tiles">/);
    expect(run("export", good, "--html", page).status).toBe(0);
    expect(readFileSync(page, "utf8")).not.toContain('role="alert"');
  });
});

describe("check --sarif", () => {
  const invocation = (...args: string[]) => {
    const { status, stdout } = run("check", "--sarif", "--best-effort", ...args);
    return { status, ...JSON.parse(stdout).runs[0].invocations[0] };
  };

  test("of what was read whole is a successful execution", () => {
    expect(invocation(good)).toEqual({ status: 0, executionSuccessful: true });
  });

  test("of what is damaged or cannot be read is not, and names each file", () => {
    const one = (message: RegExp, file: string) => ({
      level: "error",
      message: { text: expect.stringMatching(message) },
      locations: [{ physicalLocation: { artifactLocation: { uri: file } } }],
    });
    const [damaged, unread] = [one(/offset \d+/, cut), one(/not a trace/, foreign)];
    const failed = { status: 2, executionSuccessful: false };
    expect(invocation(cut)).toEqual({ ...failed, toolExecutionNotifications: [damaged] });
    expect(invocation(foreign)).toEqual({ ...failed, toolExecutionNotifications: [unread] });
    expect(invocation(good, cut, foreign)).toEqual({ ...failed, toolExecutionNotifications: [unread, damaged] });
  });
});

describe("the table of several traces", () => {
  test("lists those that were not read, and marks damaged ones", () => {
    const { status, stdout } = run("check", good, cut, foreign, "--best-effort");
    expect(status).toBe(2);
    expect(stdout).toMatch(/^3 traces \(1 not read, 1 damaged\), [\d,]+ events: /);
    expect(stdout).toMatch(/^\S*cut\.dat \(damaged\) +[\d,]+ /m);
    expect(stdout).toMatch(/^\S*foreign\.dat +not read +- +- +-$/m);
  });

  test("does not say that there are no errors where nothing was read", () => {
    const { status, stdout } = run("check", foreign, join(folder, "none.dat"));
    expect(status).toBe(2);
    expect(stdout).toMatch(/^2 traces \(2 not read\): nothing was judged$/m);
    expect(stdout).not.toContain("no errors");
  });

  test("says how to see the advice of one", () => {
    const advised = `${traces}strict-inflight.dat.gz`;
    expect(run("check", good, advised).stdout).toContain(`dmalink check ${advised}\n`);
    expect(run("check", good, good).stdout).not.toContain("dmalink check");
  });
});
