/** Where a trace may come from: whatever can be read as a file. */
import { type SpawnSyncReturns, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

const program = new URL("../../dist/apps/cli/main.js", import.meta.url).pathname;
const traces = new URL("../golden/traces/", import.meta.url).pathname;
let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "dmalink-input-"));
  writeFileSync(join(folder, "good.dat"), gunzipSync(readFileSync(`${traces}strict-net.dat.gz`)));
  writeFileSync(join(folder, "good.dat.gz"), readFileSync(`${traces}strict-net.dat.gz`));
});
afterAll(() => rmSync(folder, { recursive: true }));
const shell = (script: string): SpawnSyncReturns<string> =>
  spawnSync("bash", ["-c", script], {
    encoding: "utf8",
    cwd: folder,
    timeout: 50_000,
    env: { ...process.env, NODE: process.execPath, PROGRAM: program },
  });

describe("a binary trace", () => {
  test.each([
    ["from a process", '"$NODE" "$PROGRAM" check <(cat good.dat)'],
    ["from a process, compressed", '"$NODE" "$PROGRAM" check <(cat good.dat.gz)'],
    ["from a pipe named as a file", 'cat good.dat | "$NODE" "$PROGRAM" check /dev/stdin'],
    ["from a pipe named -", 'cat good.dat | "$NODE" "$PROGRAM" check -'],
    ["from a FIFO", 'mkfifo fifo; cat good.dat > fifo & "$NODE" "$PROGRAM" check fifo'],
    ["from a file as standard input", '"$NODE" "$PROGRAM" check /dev/stdin < good.dat'],
    ["behind --", '"$NODE" "$PROGRAM" check -- good.dat'],
  ])("%s is read as from a file", (_, script) => {
    const { status, stdout, stderr } = shell(script);
    expect([status, stderr]).toEqual([0, ""]);
    expect(stdout.replace(/\s+/g, " ")).toContain("14,689 events");
  });
});
