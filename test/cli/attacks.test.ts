/**
 * Files made to break a reader, through every command that reads them: an answer or one line of refusal, in bounded time and
 * memory; never a fault of the program. What is in each is said in `src/trace/limits.test.ts`.
 */
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { type Answered, dmalink } from "./in-process.ts";

const attacks = join(import.meta.dirname, "../golden/attacks");
const traces = readdirSync(attacks).filter((name) => /\.(txt|dat)(\.gz)?$/.test(name));
const folder = mkdtempSync(join(tmpdir(), "dmalink-attacks-"));
afterAll(() => rmSync(folder, { recursive: true }));

const file = (name: string): string => join(attacks, name);

async function bounded(...words: string[]): Promise<Answered> {
  const before = process.cpuUsage();
  const answer = await dmalink(...words);
  const { user, system } = process.cpuUsage(before);
  expect((user + system) / 1e6, words.join(" ")).toBeLessThan(40);
  expect([0, 1, 2], `${words.join(" ")}: ${answer.err}`).toContain(answer.code);
  if (answer.code === 2) expect(answer.err, words.join(" ")).toMatch(/^dmalink: |damaged|not a trace/m);
  return answer;
}

describe.each(traces)("%s", (name) => {
  test.each([["check"], ["stats", "--json", "--best-effort"]])(
    "%s %s: an answer, or one line",
    async (command, ...options) => {
      const { out, err } = await bounded(command, file(name), ...options);
      expect(`${out}${err}`).not.toMatch(/NaN|Infinity|∞|\[native code\]|-\d+ ns/);
    },
  );

  test("exported: an answer, or one line", async () => {
    await bounded(
      "export",
      file(name),
      "--best-effort",
      "--parquet",
      join(folder, name),
      "--html",
      join(folder, "a.html"),
    );
  });
});

describe("a recording whose times go back", () => {
  test.each(["time-back.txt", "time-page-back.dat.gz"])(
    "%s has no negative duration, and its mappings have ended",
    async (name) => {
      const [stats] = JSON.parse((await bounded("stats", file(name), "--json")).out).traces;
      expect(stats.durationNs).toBeGreaterThan(0);
      for (const { lifetimeNs, liveAtEnd } of stats.devices) {
        expect(liveAtEnd).toBe(0);
        for (const value of Object.values(lifetimeNs ?? {})) expect(value).toBeGreaterThanOrEqual(0);
      }
      expect((await bounded("check", file(name))).out).toMatch(/events\s+over\s+[\d.]+ /);
      const sql = "select count(*) as n, count(end_ns) as ended, min(lifetime_ns) as least from mappings";
      const [{ n, ended, least }] = JSON.parse((await bounded("query", file(name), sql, "--json")).out).rows;
      expect(ended).toBe(n);
      if (least !== null) expect(least).toBeGreaterThanOrEqual(0);
    },
  );
});

test("memory that is freed at a page that is none ends", async () => {
  const { code, out } = await bounded("check", file("free-pfn-hang.txt"));
  expect([code, out.includes("1 mapping of 1 device followed")]).toEqual([0, true]);
});
