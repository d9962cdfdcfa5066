/** What the program writes: never over what it reads, whole or not at all, and nothing is left behind. */
import { type SpawnSyncReturns, spawn, spawnSync } from "node:child_process";
import {
  copyFileSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { afterEach, beforeEach, describe, expect, test } from "vitest";

const program = new URL("../../dist/apps/cli/main.js", import.meta.url).pathname;
const recorded = new URL("../golden/traces/strict-reload-nvme.dat.gz", import.meta.url).pathname;

let folder = "";
let trace = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "dmalink-output-"));
  trace = join(folder, "in.dat.gz");
  copyFileSync(recorded, trace);
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const run = (args: readonly string[], options: object = {}): SpawnSyncReturns<string> =>
  spawnSync(process.execPath, [program, ...args], { encoding: "utf8", cwd: folder, timeout: 50_000, ...options });
const shell = (script: string, env: object = {}): SpawnSyncReturns<string> =>
  spawnSync("bash", ["-c", script], {
    encoding: "utf8",
    cwd: folder,
    timeout: 50_000,
    env: { ...process.env, ...env, NODE: process.execPath, PROGRAM: program },
  });
const lines = (text: string): string[] => text.trimEnd().split("\n");
const PAGE = /^<!doctype html>/;
const page = (name: string): string => readFileSync(join(folder, name), "utf8");

describe("an output", () => {
  test("that is the input, by whatever name, is refused in one line, and the input is as it was", () => {
    linkSync(trace, join(folder, "hard"));
    symlinkSync("in.dat.gz", join(folder, "soft"));
    mkdirSync(join(folder, "tables"));
    symlinkSync("../in.dat.gz", join(folder, "tables/requests.parquet"));
    for (const args of [
      ["--html", trace],
      ["--perfetto", "./in.dat.gz"],
      ["--html", "hard"],
      ["--html", "soft"],
      ["--parquet", "tables"],
    ]) {
      const { status, stdout, stderr } = run(["export", trace, ...args]);
      expect([status, stdout], args.join(" ")).toEqual([2, ""]);
      expect(stderr).toMatch(/^dmalink: .* is an input too, .*name another file\n$/);
    }
    const piped = shell('"$NODE" "$PROGRAM" export - --html in.dat.gz < in.dat.gz');
    expect(piped.status).toBe(2);
    expect(readFileSync(trace)).toEqual(readFileSync(recorded));
    expect(readdirSync(folder).filter((name) => name.endsWith(".part"))).toEqual([]);
  });

  test("that is another output of the same call is refused, before anything is read", () => {
    for (const args of [
      ["--html", "same", "--perfetto", "./same"],
      ["--html", "tables/events.parquet", "--parquet", "tables"],
      ["--html", "-", "--perfetto", "-"],
      ["--html", "-", "--json"],
    ]) {
      mkdirSync(join(folder, "tables"), { recursive: true });
      const { status, stdout, stderr } = run(["export", "no such trace", ...args]);
      expect([status, stdout], args.join(" ")).toEqual([2, ""]);
      expect(stderr).toMatch(/^dmalink: .* too, .*name another file\n$/);
    }
  });

  test("replaces what a link leads to, there already or not; the link stays", () => {
    mkdirSync(join(folder, "elsewhere"));
    writeFileSync(join(folder, "elsewhere/old.html"), "old");
    for (const name of ["old.html", "new.html"]) {
      symlinkSync(join("elsewhere", name), join(folder, name));
      expect(run(["export", trace, "--html", name]).status).toBe(0);
      expect(readlinkSync(join(folder, name))).toBe(join("elsewhere", name));
      expect(page(join("elsewhere", name))).toMatch(PAGE);
    }
    expect(readdirSync(join(folder, "elsewhere")).sort()).toEqual(["new.html", "old.html"]);
  });

  test("that is a FIFO is written straight, and stays a FIFO", () => {
    const { stdout } = shell(
      'mkfifo pipe && { cat pipe > got & } && "$NODE" "$PROGRAM" export in.dat.gz --html pipe && wait && echo done',
    );
    expect(stdout).toBe("done\n");
    expect(lstatSync(join(folder, "pipe")).isFIFO()).toBe(true);
    expect(page("got")).toMatch(PAGE);
  });

  test("that is standard output, as - or by its path, goes there", () => {
    symlinkSync("/proc/self/fd/1", join(folder, "out"));
    for (const name of ["-", "out"])
      expect(shell(`"$NODE" "$PROGRAM" export in.dat.gz --html ${name} | cat`).stdout, name).toMatch(PAGE);
    expect(readlinkSync(join(folder, "out"))).toBe("/proc/self/fd/1");
  });

  test("without a name, twice, or a directory is refused in one line", () => {
    for (const args of [
      ["--html", ""],
      ["--html="],
      ["--parquet", ""],
      ["--parquet", "-"],
      ["--html", "a", "--html", "b"],
      ["--html", "."],
    ]) {
      const { status, stderr } = run(["export", trace, ...args]);
      expect(status, args.join(" ")).toBe(2);
      expect(stderr).toMatch(/^dmalink: .*\n$/);
    }
    expect(readdirSync(folder)).toEqual(["in.dat.gz"]);
  });

  test("keeps its name as it was typed, though it looks like a number", () => {
    expect(run(["export", trace, "--html", "007", "--perfetto=0x10"]).status).toBe(0);
    expect(readdirSync(folder).sort()).toEqual(["007", "0x10", "in.dat.gz"]);
  });

  test("of record that cannot hold a recording is refused, before the machine is looked at", () => {
    spawnSync("mkfifo", [join(folder, "pipe")]);
    for (const name of ["", "-", ".", "pipe", "none/x"]) {
      const { status, stdout, stderr } = run(["record", "-o", name, "--for", "1ms"]);
      expect([status, stdout], name).toEqual([2, ""]);
      expect(stderr).toMatch(/^dmalink: .*\n$/);
    }
    expect(lstatSync(join(folder, "pipe")).isFIFO()).toBe(true);
  });

  test("of sim is a file like the others: through a link, and not where nothing can be written", () => {
    symlinkSync("real.dat", join(folder, "link.dat"));
    expect(run(["sim", "--seed", "7", "--trace", "link.dat"]).status).toBe(0);
    expect(lstatSync(join(folder, "link.dat")).isSymbolicLink()).toBe(true);
    expect(lstatSync(join(folder, "real.dat")).size).toBeGreaterThan(1000);
    for (const name of ["none/x", "in.dat.gz/x", "."]) {
      const { status, stdout, stderr } = run(["sim", "--seed", "7", "--trace", name]);
      expect([status, stdout], name).toEqual([2, ""]);
      expect(lines(stderr)).toHaveLength(1);
    }
  });
});

describe("what goes wrong outside", () => {
  test("no place for temporary files: one line with the cure, exit 3", () => {
    const { status, stdout, stderr } = run(["query", trace, "select 1", "--no-cache"], {
      env: { ...process.env, TMPDIR: "/nonexistent" },
    });
    expect([status, stdout]).toEqual([3, ""]);
    expect(stderr).toMatch(/^dmalink: .*\/nonexistent.*TMPDIR.*\n$/);
  });

  test("a fault of the program itself never looks like a finding: exit 70", () => {
    const breaks = "data:text/javascript,JSON.stringify = () => { throw new TypeError('broken') }";
    const { status, stdout, stderr } = spawnSync(
      process.execPath,
      ["--import", breaks, program, "stats", trace, "--json"],
      { encoding: "utf8" },
    );
    expect([status, stdout]).toEqual([70, ""]);
    expect(stderr).toMatch(/fault of dmalink[\s\S]*broken/);
  });
});

describe("nothing is left behind", () => {
  const TEMPORARY = (): object => ({ ...process.env, TMPDIR: folder });

  test("by a query whose reader leaves early, or whose answer cannot be written", () => {
    const many = "'select a.* from mappings a, mappings b'";
    shell(`"$NODE" "$PROGRAM" query in.dat.gz ${many} | head -2`, { TMPDIR: folder });
    expect(readdirSync(folder)).toEqual(["in.dat.gz"]);
    const full = shell(`"$NODE" "$PROGRAM" query in.dat.gz ${many} > /dev/full`, { TMPDIR: folder });
    expect(full.status).toBe(3);
    expect(lines(full.stderr)).toHaveLength(1);
    expect(readdirSync(folder)).toEqual(["in.dat.gz"]);
  });

  test.each(["SIGINT", "SIGTERM"] as const)("by a query or an export that %s ends: 130", async (signal) => {
    const report = gunzipSync(readFileSync(recorded.replace("reload-nvme.dat", "rr4k-qd1.report.txt")));
    for (const args of [
      ["query", "-", "select 1"],
      ["export", "-", "--parquet", "tables"],
    ]) {
      const child = spawn(process.execPath, [program, ...args], { cwd: folder, env: TEMPORARY() as NodeJS.ProcessEnv });
      child.stdin.on("error", () => undefined); // it leaves before it has read all
      child.stdin.write(report); // and no end: it waits for more
      const madeIn = args[0] === "query" ? /^dmalink-query-/ : /^tables$/;
      const isBegun = (): boolean => {
        const made = readdirSync(folder).find((name) => madeIn.test(name));
        return made !== undefined && readdirSync(join(folder, made)).length > 0;
      };
      while (!isBegun()) await new Promise((done) => setTimeout(done, 10));
      const ended = new Promise((done) => child.once("exit", (code) => done(code)));
      child.kill(signal);
      expect(await ended).toBe(130);
      expect(readdirSync(folder).filter((name) => name.startsWith("dmalink-"))).toEqual([]);
      if (args[0] === "export") expect(readdirSync(join(folder, "tables"))).toEqual([]);
    }
  });
});
