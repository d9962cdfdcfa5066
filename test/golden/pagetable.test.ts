/** Page tables against the kernel's own answers: no difference in any file. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import type { Header, Line } from "./judge.ts";
import { judges } from "./pagetable.ts";

const folder = join(import.meta.dirname, "pagetable");

describe("page tables answer as Linux does, to the bit", () => {
  for (const name of readdirSync(folder).sort())
    test(name.replace(".jsonl.gz", ""), async () => {
      const [header, ...lines] = gunzipSync(readFileSync(join(folder, name)))
        .toString()
        .trim()
        .split("\n")
        .map((line) => JSON.parse(line) as Line);
      const verdict = await judges[header!.kind as string]!(header as Header, lines);
      expect(verdict.difference).toBeUndefined();
      expect(verdict.passed).toBe(lines.length);
    });
});
