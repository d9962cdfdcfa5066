/**
 * Everything that must hold before a change lands, in some six minutes: types, floors, lint, tests, small benches,
 * examples, the package. Prints one line a step; a step that fails prints what it said, and the check exits 1.
 * `--without-tests` leaves the tests out, for who runs them by themselves.
 */
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";

interface Step {
  readonly name: string;
  readonly command: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
}

const node = process.execPath;
const tsx = (file: string, ...args: string[]): string[] => [node, "--import", "tsx", file, ...args];
const examples = existsSync("examples")
  ? readdirSync("examples")
      .filter((name) => name.endsWith(".ts"))
      .sort()
  : [];

/** Without the paths by which the repository's own compiler finds the sources. */
const AS_A_USER = { TSX_TSCONFIG_PATH: "examples/tsconfig.json" };

const TESTS: Step = { name: "tests", command: [node, "node_modules/vitest/vitest.mjs", "run", "--reporter=dot"] };

const steps: Step[] = [
  { name: "types (TypeScript 7)", command: [node, "node_modules/ts7/bin/tsc", "--noEmit", "-p", "."] },
  { name: "types (TypeScript 6)", command: [node, "node_modules/typescript/bin/tsc", "--noEmit", "-p", "."] },
  { name: "types of the page", command: [node, "node_modules/ts7/bin/tsc", "--noEmit", "-p", "src/apps/web"] },
  { name: "floors", command: tsx("tools/floors.ts") },
  { name: "tidy", command: tsx("tools/tidy.ts") },
  // Says which public name or member has no documentation, and which link leads nowhere; the reference itself is `npm run docs`.
  {
    name: "documentation",
    command: [node, "node_modules/typedoc/bin/typedoc", "--emit", "none", "--logLevel", "Warn"],
  },
  { name: "lint and format", command: [node, "node_modules/@biomejs/biome/bin/biome", "ci", "--colors=off", "."] },
  ...(process.argv.includes("--without-tests") ? [] : [TESTS]),
  { name: "recorded machines, checked", command: tsx("tools/sim-check.ts") },
  { name: "benches, small", command: tsx("tools/bench.ts", "--smoke") },
  // Against the package as it was built, imported by its name as a user does.
  ...examples.map((name) => ({ name: `example ${name}`, command: tsx(`examples/${name}`), env: AS_A_USER })),
  { name: "types of the package", command: tsx("tools/package-types.ts") },
  { name: "package", command: [node, "node_modules/publint/src/cli.js", "--strict"] },
];

let failed = 0;
for (const { name, command, env } of steps) {
  const start = performance.now();
  const [program, ...args] = command as [string, ...string[]];
  const { status, stdout, stderr } = spawnSync(program, args, {
    encoding: "utf8",
    maxBuffer: 1 << 28,
    env: { ...process.env, ...env },
  });
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  process.stdout.write(`${status === 0 ? "ok    " : "FAILED"} ${name} (${seconds} s)\n`);
  if (status !== 0) {
    failed++;
    process.stdout.write(`${stdout}${stderr}\n`);
  }
}
process.stdout.write(failed === 0 ? `all ${steps.length} steps hold\n` : `${failed} of ${steps.length} steps failed\n`);
process.exit(failed === 0 ? 0 : 1);
