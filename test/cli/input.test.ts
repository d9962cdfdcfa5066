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

describe("a trace with escape sequences in its names", () => {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: that there is none is what is tested
  const OBEYED = /[\0-\x09\x0b-\x1f\x7f-\x9f]/;

  test.each(["check", "check --json", "stats", "compare", "query", "query --json"])(
    "is told by %s without any",
    (command) => {
      const text = gunzipSync(readFileSync(`${traces}strict-rr4k-qd1.report.txt.gz`)).toString();
      const [head, ...lines] = text.split("\n");
      const cut = lines.filter((line) => line.includes("dma_")).slice(0, 99); // the last ones lack their unmap
      const evil = cut.map((line) =>
        line.replace(/^ *\S+-(\d+)/, "  e\x1b[2Jvil-$1").replaceAll("0000:00:04.0", "d\u009b31m"),
      );
      writeFileSync(join(folder, "e\x1b[2Jvil.txt"), [head, ...evil, evil[1], evil[1], ""].join("\n"));
      const sql = command.startsWith("query") ? '"select distinct device, task from events"' : "";
      const [name, ...rest] = command.split(" ");
      const { stdout, stderr } = shell(`"$NODE" "$PROGRAM" ${name} $'e\\x1b[2Jvil.txt' ${sql} ${rest.join(" ")}`);
      expect(stdout + stderr).toContain("\\u001b[2J");
      expect(stdout + stderr).not.toMatch(OBEYED);
    },
  );
});
