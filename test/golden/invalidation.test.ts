/** Every invalidation golden file, every line. */
import { readdirSync, readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { judges } from "./invalidation.ts";
import type { Header, Line } from "./judge.ts";

const folder = new URL("./invalidation/", import.meta.url);
const files = readdirSync(folder).filter((name) => name.endsWith(".jsonl.gz"));

describe("invalidations equal the kernel's", () => {
  test("all 3 files are here", () => expect(files).toHaveLength(3));
  for (const file of files)
    test(file, async () => {
      const text = gunzipSync(readFileSync(new URL(file, folder))).toString();
      const [header, ...lines] = text.trimEnd().split("\n").map((line) => JSON.parse(line) as Line);
      const verdict = await judges[(header as Header).kind]!(header as Header, lines);
      expect(verdict.difference).toBeUndefined();
      expect(verdict.passed).toBe(lines.length);
    });
});
