/** Commands that write, ended by what they cannot hear or mend: SIGKILL at any moment, a full disk, another of themselves. */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { Outputs } from "../../src/apps/cli/files/output.ts";
import { isGone, ownerName } from "../../src/apps/cli/files/owner.ts";
import { UndoOnExit } from "../../src/apps/cli/files/undo-on-exit.ts";
import { Random } from "../../src/base/index.ts";
import { many } from "../effort.ts";

const program = new URL("../../dist/apps/cli/main.js", import.meta.url).pathname;
const recorded = new URL("../golden/traces/strict-net.dat.gz", import.meta.url).pathname;
/** More rounds for who has the time. */
const ROUNDS = many(1);

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "dmalink-killed-"));
  copyFileSync(recorded, join(folder, "in.dat.gz"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const ARGUMENTS = ["export", "in.dat.gz", "--html", "out.html", "--perfetto", "out.pftrace", "--parquet", "tables"];
const begin = (): ChildProcess =>
  spawn(process.execPath, [program, ...ARGUMENTS], {
    cwd: folder,
    stdio: "ignore",
    env: { ...process.env, TMPDIR: folder },
  });
const ended = (child: ChildProcess): Promise<number | null> => new Promise((done) => child.once("exit", done));
const run = (words: readonly string[], cwd: string) =>
  spawnSync(process.execPath, [program, ...words], { cwd, encoding: "utf8", env: { ...process.env, TMPDIR: cwd } });
const partsIn = (at: string): string[] => readdirSync(at).filter((name) => /\.part$|^dmalink-/.test(name));

/** Whole, by how each kind ends. */
function expectWhole(at: string): void {
  for (const name of readdirSync(at)) {
    if (name.endsWith(".html"))
      expect(readFileSync(join(at, name), "utf8")).toMatch(/^<!doctype html>[\s\S]*<\/html>\s*$/);
    if (name.endsWith(".parquet")) expect(readFileSync(join(at, name)).subarray(-4).toString()).toBe("PAR1");
  }
}

describe("a process that is killed", () => {
  test("at any moment leaves nothing that looks whole and is not, and the next run takes its parts away", async () => {
    const random = Random.fromSeed(Number(process.env.DMALINK_SEED) || 1);
    mkdirSync(join(folder, "tables"));
    for (let round = 0; round < ROUNDS; round++) {
      const child = begin();
      await new Promise((done) => setTimeout(done, 100 + random.below(700)));
      child.kill("SIGKILL");
      await ended(child);
      expectWhole(folder);
      expectWhole(join(folder, "tables"));
    }
    expect(await ended(begin())).toBe(0);
    expectWhole(folder);
    expect([...partsIn(folder), ...partsIn(join(folder, "tables"))]).toEqual([]);
    expect(readdirSync(join(folder, "tables")).sort()).toEqual([
      "events.parquet",
      "findings.parquet",
      "mappings.parquet",
      "requests.parquet",
    ]);
  });

  test("is told from one that lives, from another of its number, and from one that cannot be seen", () => {
    const own = ownerName();
    const [pid, start, place] = own.split("-");
    const gone = spawnSync("true").pid;
    expect(isGone(own)).toBe(false);
    expect(isGone(`${gone}-${start}-${place}`)).toBe(true);
    expect(isGone(`${pid}-${Number(start) + 1}-${place}`)).toBe(true); // the number is used again
    expect(isGone(`${gone}-${start}-${place}0`)).toBe(false); // another container's, or another machine's
  });

  test("left a recording: that is no part to be swept", () => {
    const gone = `${spawnSync("true").pid}-${ownerName().split("-").slice(1).join("-")}`;
    const left = [
      `out.dat.${gone}.part`,
      `out.dat.${gone}.part.cpu0`,
      `other.dat.${gone}.part`,
      `out.dat.${ownerName()}1.part`,
    ];
    for (const name of left) writeFileSync(join(folder, name), "x");
    writeFileSync(join(folder, `swept.dat.${gone}.part`), "x");
    const undo = new UndoOnExit();
    const outputs = new Outputs(undo);
    outputs.claim("-o", join(folder, "out.dat"));
    outputs.claim("--html", join(folder, "swept.dat"));
    undo.run();
    expect(readdirSync(folder).sort()).toEqual(["in.dat.gz", ...left].sort());
  });
});

describe("two at once with one name", () => {
  test("have a part each, and in the end one of them has the name, whole", async () => {
    expect(await Promise.all([ended(begin()), ended(begin())])).toEqual([0, 0]);
    expectWhole(folder);
    expect([...partsIn(folder), ...partsIn(join(folder, "tables"))]).toEqual([]);
  });

  test("and a part is named for its process: no other's has its name", () => {
    const undo = new UndoOnExit();
    expect(new Outputs(undo).claim("-o", join(folder, "a")).part).toMatch(
      new RegExp(`a\\.${process.pid}-\\d+-[0-9a-f]+\\.part$`),
    );
    undo.run();
  });
});

test("a disk that is full: exit code 3 in one line, nothing left, and what was there before is as it was", () => {
  const disk = join(folder, "disk");
  mkdirSync(disk);
  if (spawnSync("mount", ["-t", "tmpfs", "-o", "size=12k", "none", disk]).status !== 0) return; // only root may
  try {
    writeFileSync(join(disk, "out.html"), "before");
    for (const words of [
      ["--html", "disk/out.html"],
      ["--perfetto", "disk/out.html"],
    ]) {
      const { status, stdout, stderr } = run(["export", "in.dat.gz", ...words], folder);
      expect([status, stdout]).toEqual([3, ""]);
      expect(stderr).toMatch(/^dmalink: cannot write disk\/out\.html: ENOSPC.*\n$/);
      expect(readdirSync(disk)).toEqual(["out.html"]);
      expect(readFileSync(join(disk, "out.html"), "utf8")).toBe("before");
    }
    const asked = spawnSync(process.execPath, [program, "query", "../in.dat.gz", "select 1"], {
      cwd: disk,
      encoding: "utf8",
      env: { ...process.env, TMPDIR: disk, XDG_CACHE_HOME: disk },
    });
    expect([asked.status, asked.stdout]).toEqual([3, ""]);
    const files = readdirSync(disk, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
    expect(files.map(({ name }) => name)).toEqual(["out.html"]);
  } finally {
    spawnSync("umount", ["-l", disk]);
  }
});
