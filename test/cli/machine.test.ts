/** What the machine does to the program: pipes that close, descriptors and memory that run out. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gunzipSync, gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { endOf } from "../../src/apps/cli/exit-errors.ts";
import { LONG } from "../effort.ts";
import { dmalink } from "./in-process.ts";

const program = new URL("../../dist/apps/cli/main.js", import.meta.url).pathname;
const good = new URL("../golden/traces/strict-net.dat.gz", import.meta.url).pathname;

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "dmalink-machine-"));
  const unmap = "dma_unmap_phys: 0000:00:04.0 dir=TO_DEVICE dma_addr=fff00000 size=4096 attrs=";
  const map = unmap.replace("unmap", "map").replace(" attrs", " phys_addr=100000 attrs");
  const lines = [map, unmap, unmap].map((event, i) => `  fio-1  [000]  1.00000${i}: ${event}`);
  writeFileSync(join(folder, "bad.txt"), `cpus=1\n${lines.join("\n")}\n`);
});
afterAll(() => rmSync(folder, { recursive: true }));

const shell = (script: string): { code: number | null; out: string; err: string } => {
  const { status, stdout, stderr } = spawnSync("bash", ["-c", script], {
    encoding: "utf8",
    cwd: folder,
    timeout: 50_000,
    env: { ...process.env, NODE: process.execPath, PROGRAM: program },
  });
  return { code: status, out: stdout, err: stderr };
};

describe("an answer that nobody reads to its end", () => {
  test("has the exit code of its verdict, or that of a broken pipe: findings never read as clean", () => {
    for (const reader of ["true", "head -1", "sleep 0.01"]) {
      const { out } = shell(`"$NODE" "$PROGRAM" check bad.txt | ${reader} > /dev/null; echo "\${PIPESTATUS[0]}"`);
      expect(["1", "141"], reader).toContain(out.trim());
    }
    expect(shell('"$NODE" "$PROGRAM" check bad.txt').code).toBe(1);
  });
});

describe("too few file descriptors", () => {
  test.for([20, 23, 30])("(%i) are no finding, and no fault of the program", (limit, { skip }) => {
    skip(shell(`ulimit -n ${limit}; "$NODE" -e 0`).code !== 0, "Node itself does not start with so few");
    for (const traces of ["bad.txt", `${good} ${good}`]) {
      const { code, err } = shell(`ulimit -n ${limit}; "$NODE" "$PROGRAM" check ${traces}`);
      if (code === 0 || (code === 1 && traces === "bad.txt" && err === "")) continue; // they were enough
      expect([limit, code, err.split("\n").length]).toEqual([limit, 3, 2]);
      expect(err).toMatch(/^dmalink: .*EMFILE/);
    }
  });
});

test("what a worker says that could not be started, or had too little memory, is the machine's", () => {
  for (const code of ["EMFILE", "ERR_WORKER_OUT_OF_MEMORY", "ERR_WORKER_INIT_FAILED"])
    expect(endOf(Object.assign(new Error("no"), { code }))).toEqual({ message: `no (${code})`, code: 3 });
  expect(endOf(new Error("no")).code).toBe(70);
});

describe.runIf(LONG)("a packed input that unpacks to no end", () => {
  const head =
    "cpus=1\n  fio-1  [000]  1.000000: dma_map_phys: 0000:00:04.0 dir=TO_DEVICE dma_addr=fff00000 size=4096 phys_addr=100000 attrs=\n";
  const trace = gunzipSync(readFileSync(good));

  test.each([
    ["text of empty lines", () => Buffer.concat([Buffer.from(head), Buffer.alloc(100 << 20, 10)])],
    ["a trace.dat with zeroes behind it", () => Buffer.concat([trace, Buffer.alloc(200 << 20)])],
  ])("is refused in one line: %s", async (name, unpacked) => {
    const file = join(folder, `${name.split(" ").join("-")}.gz`);
    writeFileSync(file, gzipSync(unpacked(), { level: 9 }));
    const { code, out, err } = await dmalink("stats", file);
    expect([code, out]).toEqual([2, ""]);
    expect(err).toMatch(/^dmalink: .* unpack to more than .*unpack it first\n$/);
    rmSync(file);
  });
});
