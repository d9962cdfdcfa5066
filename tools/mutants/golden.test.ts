/** The golden files of one room, as tests of their own: a mutant is asked only those that reach it. */
import { basename, join } from "node:path";
import { expect, test } from "vitest";
import { goldenFiles, judgeFile } from "../../test/golden/runner.ts";

const folders = JSON.parse(process.env.DMALINK_MUTANT_GOLDEN ?? "[]") as string[];
for (const folder of folders)
  for (const file of goldenFiles(join(import.meta.dirname, "../../test/golden", folder)))
    test(basename(file), { timeout: 120_000 }, async () => {
      const { verdict, failure } = await judgeFile(file);
      expect([failure, verdict?.difference]).toEqual([undefined, undefined]);
    });
