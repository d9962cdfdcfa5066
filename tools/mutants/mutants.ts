/**
 * Mutation testing: lines of one room are made wrong, one at a time, and its tests are asked whether they notice.
 *
 *     npm run mutants -- iova                      every mutant of the room
 *     npm run mutants -- dma --share 0.1           those of a tenth of its lines, drawn by --seed (1)
 *     npm run mutants -- swiotlb --file pool       only files whose path holds "pool"
 *     npm run mutants -- iova --at src/iova/allocator.ts:150-160    only these lines; as often as one likes
 *     npm run mutants -- iommu --by simulation     asks whole simulated machines, seeds 1 to 500, not the room's tests
 *
 * Prints each survivor (file, line, what stood there and what was put in its place) and the score by file; exit code 1
 * below --at-least PERCENT (none by default). The packages that it needs are installed beside it the first time. Words of
 * messages are left as they are: that a message is clear is no promise that a mutant can break.
 *
 * Stryker does the work (docs/decisions/0019-mutants.md says why it); this chooses what it is given.
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { Random } from "../../src/base/index.ts";
import { ROOMS } from "./rooms.ts";

const here = dirname(fileURLToPath(import.meta.url));
const top = resolve(here, "../..");
/** Lines that are drawn together: a statement and its neighbours. */
const DRAWN_LINES = 6;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    share: { type: "string", default: "1" },
    seed: { type: "string", default: "1" },
    file: { type: "string", default: "" },
    at: { type: "string", multiple: true },
    by: { type: "string", default: "tests" },
    "at-least": { type: "string" },
  },
});
const name = positionals[0] ?? "";
const room = Object.hasOwn(ROOMS, name) ? ROOMS[name] : undefined;
const share = Number(values.share);
if (room === undefined) usage(`name a room: ${Object.keys(ROOMS).join(", ")}`);
if (!(share > 0 && share <= 1)) usage(`--share is above 0 and at most 1, not ${values.share}`);
if (values.by !== "tests" && values.by !== "simulation") usage(`--by is tests or simulation, not ${values.by}`);

const files = room.sources.flatMap(sourcesOf).filter((file) => file.includes(values.file));
if (files.length === 0) usage(`no source of ${name} has "${values.file}" in its path`);
const mutate =
  values.at ?? (share === 1 ? files : files.flatMap((file) => drawn(file, Random.fromSeed(Number(values.seed)))));
if (mutate.length === 0) usage(`a share of ${share} draws no line of ${files.length} files: ask for more`);

if (!existsSync(join(here, "node_modules/@stryker-mutator/core"))) {
  process.stderr.write("installing what mutation runs need, once\n");
  must("npm", ["ci", "--prefix", here], {});
}
const folder = mkdtempSync(join(tmpdir(), "dmalink-mutants-"));
try {
  const config = join(folder, "stryker.config.json");
  const simulated = values.by === "simulation";
  writeFileSync(
    config,
    JSON.stringify({
      mutate,
      testRunner: "vitest",
      plugins: [join(here, "node_modules/@stryker-mutator/vitest-runner/dist/src/index.js")],
      vitest: { configFile: "tools/mutants/vitest.config.ts", related: false },
      coverageAnalysis: "perTest",
      mutator: { excludedMutations: ["StringLiteral"] },
      reporters: ["clear-text"],
      clearTextReporter: { logTests: false, reportTests: false, reportScoreTable: true, allowEmojis: false },
      allowConsoleColors: process.stdout.isTTY === true,
      thresholds: { high: 90, low: 80, break: values["at-least"] === undefined ? null : Number(values["at-least"]) },
      ignorePatterns: ["dist", "docs/api"],
      tempDirName: join(folder, "sandbox"),
      incremental: false,
      timeoutMS: 20_000,
    }),
  );
  const status = must(join(here, "node_modules/.bin/stryker"), ["run", config], {
    DMALINK_MUTANT_TESTS: JSON.stringify(
      simulated
        ? ["tools/mutants/simulation.test.ts"]
        : [...room.tests, ...(room.golden.length > 0 ? ["tools/mutants/golden.test.ts"] : [])],
    ),
    DMALINK_MUTANT_GOLDEN: JSON.stringify(room.golden),
  });
  process.exitCode = status;
} finally {
  rmSync(folder, { recursive: true, force: true });
}

/** The sources of a folder and of those in it, without tests and benchmarks, by their path from the top. */
function sourcesOf(source: string): string[] {
  return readdirSync(join(top, source), { recursive: true, encoding: "utf8" })
    .filter((file) => file.endsWith(".ts") && !file.endsWith(".test.ts") && !file.endsWith(".bench.ts"))
    .map((file) => relative(top, join(top, source, file)))
    .sort();
}

/** Ranges of lines of a file, each drawn with the chance of the share. */
function drawn(file: string, random: Random): string[] {
  const lines = readFileSync(join(top, file), "utf8").split("\n").length;
  const chance = random.fork(file);
  const ranges: string[] = [];
  for (let first = 1; first <= lines; first += DRAWN_LINES)
    if (chance.below(1_000_000) < share * 1_000_000)
      ranges.push(`${file}:${first}-${Math.min(lines, first + DRAWN_LINES - 1)}`);
  return ranges;
}

/** Runs a command in the project's folder, its output shown; its exit code. */
function must(command: string, args: readonly string[], environment: Record<string, string>): number {
  const run = spawnSync(command, args, { cwd: top, stdio: "inherit", env: { ...process.env, ...environment } });
  if (run.error !== undefined) throw run.error;
  return run.status ?? 1;
}

function usage(what: string): never {
  process.stderr.write(`${what}\n`);
  process.exit(2);
}
