/** What the documents show is what runs. */
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";

const read = (path: string): string => readFileSync(new URL(`../../${path}`, import.meta.url), "utf8");

test("the program in docs/analyze-a-trace.md is the example that the check runs", () => {
  const example = read("examples/a-trace-as-a-program.ts")
    .replace(/"\.\.\/src\/(\w+)\/index\.ts"/g, '"dmalink/$1"')
    .replace(/process\.argv\[2\] \?\? "[^"]+"/, '"trace.dat.gz"');
  const shown = /```ts\n(import[\s\S]*?)```/.exec(read("docs/analyze-a-trace.md"))?.[1];
  expect(shown).toBe(example.slice(example.indexOf("import")));
});
