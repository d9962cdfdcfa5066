/** `dmalink compare` as its command: what it takes from files and options, and adds to its answer. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { dmalink } from "./in-process.ts";

const trace = join(import.meta.dirname, "../golden/traces/strict-reload-nvme.dat.gz");

const compare = (...options: string[]) => dmalink("compare", trace, "--json", ...options);

async function answer(...options: string[]): Promise<Record<string, unknown>> {
  const { code, out } = await compare(...options);
  expect(code).toBe(0);
  return JSON.parse(out).traces[0];
}

describe("dmalink compare", () => {
  let folder = "";
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), "dmalink-compare-"));
  });
  afterAll(() => rmSync(folder, { recursive: true }));
  test("takes prices from a file, and says which it used", async () => {
    const file = join(folder, "cost.json");
    writeFileSync(file, '{"invalidationNs": 0, "iovaOpNs": 0, "pteWriteNs": 0, "iovaStepNs": 0, "callNs": 7}');
    const { cost, strategies } = (await answer("--cost", file)) as {
      cost: object;
      strategies: { calls: number; predictedNs: number }[];
    };
    expect(cost).toMatchObject({ callNs: 7, invalidationNs: 0 });
    for (const { calls, predictedNs } of strategies) expect(predictedNs).toBe(calls * 7);
    const refused = await compare("--cost", join(folder, "none"));
    expect([refused.code, refused.out]).toEqual([2, ""]);
    expect(refused.err).toMatch(/cannot read/);
  });

  test("--what-if stands beside the answer, not in its place", async () => {
    const result = (await answer("--what-if", "lazy")) as {
      mode: string;
      whatIf: { question: string; mode: string; strategies: unknown[] };
    };
    expect([result.mode, result.whatIf.question, result.whatIf.mode]).toEqual(["strict", "lazy", "lazy"]);
    expect(result.whatIf.strategies).toHaveLength(8);
  });
});

describe("dmalink compare --as nvme", () => {
  test("adds to the answer, under its own name", async () => {
    const [plain, both] = [await answer(), await answer("--as", "nvme")];
    expect(plain.nvme).toBeUndefined();
    expect(both.nvme).toMatchObject({
      requests: 113,
      commands: 113,
      leftOut: { coherent: 8, notBlocks: 1, misaligned: 0, notMemory: 0 },
      mismatches: 0,
      leaks: [],
      cost: { invalidations: 113 },
    });
    expect((both.nvme as { strategies: { name: string }[] }).strategies.map(({ name }) => name)).toEqual([
      "one-shot",
      "scatterlist",
      "two-step",
    ]);
    const counts = ({ strategies }: Record<string, unknown>): unknown =>
      (strategies as object[]).map((strategy) => ({ ...strategy, nsPerPage: 0 }));
    expect(counts(both)).toEqual(counts(plain));
  });
});
