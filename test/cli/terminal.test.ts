/** The program on a terminal of its own, which `script` of util-linux gives it: width, colours, and the line of progress. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

const program = new URL("../../dist/apps/cli/main.js", import.meta.url).pathname;
const recorded = new URL("../golden/traces/strict-rr4k-qd1.report.txt.gz", import.meta.url);
const hasScript = spawnSync("script", ["--version"]).status === 0;
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const SIGNS = /\x1b\[[0-9;]*m/g;
let folder = "";
let faulty = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "dmalink-terminal-"));
  faulty = join(folder, "twice.txt");
  const lines = gunzipSync(readFileSync(recorded)).toString().split("\n");
  const at = lines.findIndex((line, i) => i > 1000 && line.includes(" unmap:"));
  lines.splice(at + 2, 0, lines[at]!, lines[at + 1]!); // an unmap, printed twice
  writeFileSync(faulty, lines.join("\n"));
});
afterAll(() => rmSync(folder, { recursive: true }));

/** What a terminal of `columns` gets of `dmalink WORDS`. */
function onTerminal(columns: number, words: string, env: Record<string, string> = {}): string {
  const command = `stty cols ${columns}; '${process.execPath}' '${program}' ${words}`;
  const { NO_COLOR, FORCE_COLOR, COLUMNS, ...rest } = process.env;
  const { stdout } = spawnSync("script", ["-qec", command, "/dev/null"], {
    encoding: "utf8",
    env: { ...rest, TERM: "xterm", ...env },
  });
  return stdout.replaceAll("\r\n", "\n");
}

/** What stays on the terminal: the line of progress, which a slow machine shows, is taken back. */
const left = (shown: string): string => {
  const parts = shown.split("\r\x1b[K");
  return parts[0]! + (parts.length > 1 ? parts.at(-1)! : "");
};

describe.skipIf(!hasScript)("on a terminal", () => {
  test("lines are as wide as it is, and what is wrong stands out", () => {
    const wide = left(onTerminal(110, `check '${faulty}'`));
    expect(wide).toContain("\x1b[1;31merror double-unmap\x1b[0m");
    const lines = wide.replace(SIGNS, "").split("\n");
    const longest = Math.max(...lines.filter((line) => !line.includes(folder)).map(({ length }) => length));
    expect(longest).toBeGreaterThan(80);
    expect(longest).toBeLessThanOrEqual(110);
  });

  test("without colours the words are the same", () => {
    const coloured = left(onTerminal(80, `check '${faulty}'`));
    const plain = left(onTerminal(80, `check '${faulty}'`, { NO_COLOR: "1" }));
    expect(plain).not.toMatch(SIGNS);
    expect(coloured.replace(SIGNS, "")).toBe(plain);
    const piped = spawnSync(process.execPath, [program, "check", faulty], { encoding: "utf8" });
    expect(piped.stdout).toBe(plain);
  });

  test("JSON has no colours, and the error of the program has one", () => {
    expect(left(onTerminal(80, `check '${faulty}' --json`))).not.toContain("\x1b");
    expect(onTerminal(80, "stats none")).toContain("\x1b[1;31mdmalink:\x1b[0m none: no such file");
  });

  test("what takes longer says how much is done and how long the rest takes, and leaves nothing behind", () => {
    const shown = onTerminal(100, "sim --seeds 1..100000 --minutes 0.06 --json").split("\r\x1b[K");
    expect(shown.length).toBeGreaterThan(3);
    expect(shown.some((line) => /: \d+ %, seed \d+, 0 failed, \d+ s left$/.test(line))).toBe(true);
    expect(JSON.parse(shown.at(-1)!)).toMatchObject({ schema: "dmalink.sim/1", failed: 0 });
  });
});
