/** All 64 combinations of direction, coherence and attributes. */
import { readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { expect, test } from "vitest";
import { judges } from "./dma-prot.ts";
import type { Header, Line } from "./judge.ts";

test("permissions equal the kernel's for all 64 combinations of direction, coherence and attributes", async () => {
  const file = new URL("./dma-api/dma-prot.jsonl.gz", import.meta.url);
  const text = gunzipSync(readFileSync(file)).toString();
  const [header, ...lines] = text.trimEnd().split("\n").map((line) => JSON.parse(line) as Line);
  const verdict = await judges["dma-prot"]!(header as Header, lines);
  expect(verdict.difference).toBeUndefined();
  expect(verdict.passed).toBe(64);
});
