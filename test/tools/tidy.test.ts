/** Tidy finds what it says it finds: a small project with one breach of each kind, and what is said of it. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { CHECKS, circles } from "../../tools/tidy/checks.ts";
import { Code } from "../../tools/tidy/code.ts";

const long = Array.from({ length: 80 }, (_, i) => `  console.log(${i});`).join("\n");
const FILES: Readonly<Record<string, string>> = {
  "tsconfig.json": JSON.stringify({
    compilerOptions: { module: "nodenext", allowImportingTsExtensions: true, noEmit: true, types: [] },
  }),
  "tsdown.config.ts": 'const entry = { index: "src/index.ts", more: "src/public/more.ts" };\n',
  "src/index.ts": 'export { once, bare } from "./a.ts";\n',
  "src/public/more.ts": 'export { once } from "../b.ts";\n',
  "src/a.ts": `/** Like \`gone.ts\`, and \`b.ts\`. */
import { other } from "./b.ts";
/** Documented. */
export const once = (): number => other;
export const bare = 1;
export const onlyTested = 2;
export const unused = 3;
export function tooLong(): void {
${long}
}
export const tooMany = (a: 1, b: 2, c: 3, d: 4, e: 5, f: 6, g: 7): unknown => [a, b, c, d, e, f, g];
`,
  "src/b.ts": `import { unused, tooLong, tooMany } from "./a.ts";
import { model } from "../test/model.ts";
/** Another one. */
export const once = (): unknown => [unused, tooLong, tooMany, model];
export const other = 4;
export const left = 5;
`,
  "test/model.ts": "export const model = 6;\n",
  "docs/page.md": "See `b.ts` and `src/left.ts`.\n\n```\n`mine.ts`\n```\n",
  "test/a.test.ts": 'import { onlyTested } from "../src/a.ts";\nconsole.log(onlyTested);\n',
};

let top: string;
let code: Code;
beforeAll(() => {
  top = mkdtempSync(join(tmpdir(), "tidy-"));
  for (const [name, text] of Object.entries(FILES)) {
    mkdirSync(dirname(join(top, name)), { recursive: true });
    writeFileSync(join(top, name), text);
  }
  code = new Code(top, ["src", "test"]);
});
afterAll(() => rmSync(top, { recursive: true }));

const keys = (check: string): string[] =>
  CHECKS.find(({ name }) => name === check)!
    .run(code)
    .map(({ key }) => key);

test.each([
  ["cycle", ["src/a.ts"]],
  ["dead-export", ["src/a.ts onlyTested", "src/b.ts left"]],
  ["public-twice", ["once"]],
  ["undocumented", ["bare"]],
  ["large-function", ["src/a.ts tooLong", "src/a.ts tooMany"]],
  ["missing-file", ["docs/page.md src/left.ts", "src/a.ts gone.ts"]],
  ["test-inside", ["src/b.ts"]],
])("%s is found once, and nothing else is", (check, expected) => {
  expect(keys(check).sort()).toEqual(expected);
});

test("circles are the parts of a graph that come back to themselves", () => {
  const graph = new Map([
    ["a", ["b"]],
    ["b", ["c", "d"]],
    ["c", ["a"]],
    ["d", ["d"]],
  ]);
  expect(circles(graph)).toEqual([["a", "b", "c"]]);
});
