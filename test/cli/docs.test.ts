/** What the documents show is what runs. */
import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";

const read = (path: string): string => readFileSync(new URL(`../../${path}`, import.meta.url), "utf8");

test("the program in docs/analyze-a-trace.md is the example that the check runs", () => {
  const example = read("examples/a-trace-as-a-program.ts")
    .replace(/"\.\.\/src\/(\w+)\/index\.ts"/g, '"dmalink/$1"')
    .replace(/process\.argv\[2\] \?\? "[^"]+"/, '"trace.dat.gz"');
  const shown = /```ts\n(import[\s\S]*?)```/.exec(read("docs/analyze-a-trace.md"))?.[1];
  expect(shown).toBe(example.slice(example.indexOf("import")));
});

describe("docs/write-a-driver.md", () => {
  const example = read("examples/checksum-device.ts");
  const blocks = [...read("docs/write-a-driver.md").matchAll(/```ts\n([\s\S]*?)```/g)].map(([, code]) => code!);

  test("begins with a device and its driver in a hundred lines: the example that the check runs", () => {
    expect(blocks[0]).toBe(example.slice(example.indexOf("import")));
    expect(blocks[0]!.split("\n").length).toBeLessThanOrEqual(100);
  });

  test("shows nothing that does not compile: every further block is a part of that example", () => {
    expect(blocks.length).toBeGreaterThan(2);
    for (const block of blocks.slice(1)) expect(example).toContain(block);
  });
});
