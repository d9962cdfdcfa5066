/**
 * `npm run bench:instructions`: how many instructions an operation takes, counted by valgrind (cachegrind).
 *
 *     npm run bench:instructions -- --only "through the API"
 *     npm run bench:instructions -- --only iova --against HEAD
 *
 * Idea: a count does not depend on who else uses the machine, so a change of one percent can be judged where times cannot be
 * trusted. Each contender runs twice with different numbers of rounds, long after the engine has compiled it; the difference
 * is what the additional rounds took. The engine works on one thread and from fixed seeds, so that a count repeats to about a
 * thousandth. Not for: caches and branches that go wrong, which cost time but no instructions; a `rep` instruction (long
 * fills and copies) counts once for each of its steps. Needs valgrind; says so where there is none.
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { build } from "tsdown";
import type { Bench } from "../bench/bench.ts";
import { benchFiles, TOP, withRevision } from "./bench-trees.ts";

const VALGRIND = [
  "--tool=cachegrind",
  "--cache-sim=no",
  "--cachegrind-out-file=/dev/null",
  "--smc-check=all-non-file", // the engine writes code
];
const NODE = ["--single-threaded", "--hash-seed=1", "--random-seed=1"];
/** Rounds of the shorter and the longer run. */
const ROUNDS = [16, 32] as const;

const args = process.argv.slice(2);
const option = (flag: string): string | undefined => (args.includes(flag) ? args[args.indexOf(flag) + 1] : undefined);
const only = option("--only");
const revision = option("--against");

function instructions(program: readonly string[]): number {
  const run = spawnSync("valgrind", [...VALGRIND, ...program], { encoding: "utf8" });
  const found = /I\s+refs:\s+([\d,]+)/.exec(run.stderr ?? "");
  if (run.status !== 0 || found === null)
    throw new Error(`valgrind ${program.join(" ")}: ${(run.stderr ?? String(run.error)).slice(-400)}`);
  return Number(found[1]!.replaceAll(",", ""));
}

/** Instructions a unit. The bundles lie in `folder`: starting sources would take longer than running them. */
function count(folder: string, bench: Bench, contender: string): number {
  const units = Math.max(bench.smoke, Math.round(bench.full / 8));
  const [short, long] = ROUNDS.map((rounds) =>
    instructions([
      "node",
      ...NODE,
      join(folder, "worker.mjs"),
      folder,
      "bench.mjs",
      bench.name,
      contender,
      String(units),
      String(rounds),
    ]),
  ) as [number, number];
  return (long - short) / ((ROUNDS[1] - ROUNDS[0]) * units);
}

async function bundle(tree: string, file: string, outDir: string): Promise<void> {
  const entry = { worker: join(TOP, "tools/bench-worker.ts"), bench: join(tree, file) };
  await build({
    config: false,
    cwd: tree,
    entry,
    outDir,
    format: "esm",
    platform: "node",
    target: "es2022",
    dts: false,
    logLevel: "error",
  });
}

async function run(other: string | undefined, commit: string): Promise<void> {
  const heads = other === undefined ? "   here" : `   here${commit.padStart(10)}   ratio`;
  process.stdout.write(`instructions a unit\n${heads}\n`);
  const work = mkdtempSync(join(tmpdir(), "dmalink-instructions-"));
  try {
    for (const file of benchFiles(TOP)) {
      const { benches } = (await import(pathToFileURL(join(TOP, file)).href)) as { benches: readonly Bench[] };
      const chosen = benches.filter(({ name }) => only === undefined || file.includes(only) || name.includes(only));
      if (chosen.length === 0) continue;
      await bundle(TOP, file, join(work, "here"));
      const isThere = other !== undefined && existsSync(join(other, file));
      if (isThere) await bundle(other, file, join(work, "there"));
      for (const bench of chosen)
        for (const contender of bench.contenders) {
          if ("native" in contender) continue;
          const here = count(join(work, "here"), bench, contender.name);
          let line = here.toFixed(1).padStart(7);
          if (isThere) {
            const there = count(join(work, "there"), bench, contender.name);
            line += `${there.toFixed(1).padStart(10)}${(here / there).toFixed(3).padStart(8)}`;
          }
          process.stdout.write(`${line}  ${bench.name}: ${contender.name}\n`);
        }
    }
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

if (spawnSync("valgrind", ["--version"]).status !== 0) {
  process.stderr.write("valgrind is not installed (Debian: apt install valgrind): no instructions can be counted\n");
  process.exit(3);
}
if (revision === undefined) await run(undefined, "");
else await withRevision(revision, run);
