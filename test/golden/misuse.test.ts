/** The judge of the kernel's misuse reports has teeth: a report changed by one digit, left out or made up is a difference. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gunzipSync, gzipSync } from "node:zlib";
import { afterAll, describe, expect, test } from "vitest";
import { judgeFile } from "./runner.ts";

const folder = mkdtempSync(join(tmpdir(), "dmalink-misuse-"));
afterAll(() => rmSync(folder, { recursive: true }));
const recorded = gunzipSync(
  readFileSync(join(import.meta.dirname, "dma-api", "dma-api-misuse-none-01.jsonl.gz")),
).toString();

describe("a recording of the kernel's reports differs when", () => {
  test.each<[string, RegExp, string, RegExp]>([
    ["a number of a report is another", /unmap size=2048/, "unmap size=2049", /reports: expected .*2049/],
    ["a report is of another kind", /with wrong function/, "with different direction", /reports: expected/],
    [
      "a report is left out",
      /"log":\["DMA-API: [^\]]*\] \[size=4096 bytes\]","WARNING check_unmap"\]/,
      '"log":[]',
      /expected \[\]/,
    ],
    [
      "a report is made up",
      /"op":"mappingError"/,
      '"op":"mappingError","log":["DMA-API: device driver maps memory from stack"]',
      /found \[\]/,
    ],
    ["the count at the end is another", /"errorCount":38/, '"errorCount":37', /errorCount: expected 37, found 38/],
    ["a line of the dump is another", /L=800 /, "L=801 ", /dump: expected/],
    ["the fewest free entries are others", /"minFreeEntries":65525/, '"minFreeEntries":65524', /minFreeEntries/],
  ])("%s", async (title, from, to, message) => {
    const changed = recorded.replace(from, to);
    expect(changed).not.toBe(recorded);
    const file = join(folder, `${title}.jsonl.gz`);
    writeFileSync(file, gzipSync(changed));
    const { verdict } = await judgeFile(file);
    expect(verdict?.difference?.message).toMatch(message);
  });
});
