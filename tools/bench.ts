/**
 * Runs benchmarks: every `*.bench.ts` beside the code, contenders interleaved, medians, ratios against the peer.
 *
 *     npm run bench                    all, in full
 *     npm run bench -- --smoke         small, as the check does: only that they run and agree
 *     npm run bench -- --only iova     files or names that contain "iova"
 *     npm run bench -- --json          machine-readable
 *     npm run bench -- --write         the full table into bench/RESULTS.md
 *     npm run bench -- --against REV   this tree and another revision in turns: bench-against.ts
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, statSync, writeFileSync } from "node:fs";
import { arch, cpus, platform, release } from "node:os";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import type { Bench, Contender, Result } from "../bench/bench.ts";
import { Random } from "../src/base/index.ts";
import { against } from "./bench-against.ts";
import { benchFiles, TOP as top } from "./bench-trees.ts";

const args = process.argv.slice(2);
const has = (flag: string): boolean => args.includes(flag);
const only = has("--only") ? args[args.indexOf("--only") + 1] : undefined;
const smoke = has("--smoke");
const rounds = smoke ? 1 : 7;

interface Row {
  bench: string;
  unit: string;
  contender: string;
  nsPerUnit: number;
  /** First contender's time over this one's; 1 for the first. */
  ratio: number;
  hash: string;
  goal?: string;
}

/** Builds bench/native with cc; undefined, and said why, where that is not possible. */
function buildNative(): string | undefined {
  const source = join(top, "bench/native/yardstick.c");
  if (!existsSync(source)) return undefined;
  const program = join(top, ".cache/yardstick");
  if (existsSync(program) && statSync(program).mtimeMs > statSync(source).mtimeMs) return program;
  mkdirSync(dirname(program), { recursive: true });
  const built = spawnSync("cc", ["-O2", "-o", program, source], { stdio: ["ignore", "inherit", "inherit"] });
  if (built.status === 0) return program;
  process.stderr.write("no C compiler (cc): the native yardstick is left out\n");
  return undefined;
}

const median = (values: number[]): number => [...values].sort((a, b) => a - b)[values.length >> 1]!;

async function runBench(bench: Bench, native: string | undefined): Promise<Row[]> {
  const units = smoke ? bench.smoke : bench.full;
  const runners: {
    contender: Contender;
    run: () => Promise<{ ns: number; result: Result }>;
    ns: number[];
    hash: number;
  }[] = [];
  for (const contender of bench.contenders) {
    if ("native" in contender) {
      if (!native) continue;
      const run = async (): Promise<{ ns: number; result: Result }> => {
        const child = spawnSync(native, [contender.native, String(units)], { encoding: "utf8" });
        if (child.status !== 0) throw new Error(`yardstick ${contender.native}: ${child.stderr}`);
        const [ns, done, hash] = child.stdout.trim().split(/\s+/).map(Number);
        return { ns: ns!, result: { units: done!, hash: hash! } };
      };
      runners.push({ contender, run, ns: [], hash: 0 });
    } else {
      const work = contender.prepare(Random.fromSeed(0x5eed));
      const run = async (): Promise<{ ns: number; result: Result }> => {
        const start = process.hrtime.bigint();
        const result = await work(units);
        return { ns: Number(process.hrtime.bigint() - start), result };
      };
      runners.push({ contender, run, ns: [], hash: 0 });
    }
  }
  for (let round = smoke ? 0 : -1; round < rounds; round++) {
    for (const runner of runners) {
      const { ns, result } = await runner.run();
      if (round < 0) continue; // warm-up
      if (round === 0) runner.hash = result.hash >>> 0;
      runner.ns.push(ns / result.units);
    }
  }
  if (bench.sameHash !== false && new Set(runners.map((runner) => runner.hash)).size > 1)
    throw new Error(
      `${bench.name}: contenders disagree: ${runners.map((r) => `${r.contender.name} ${r.hash.toString(16)}`).join(", ")}`,
    );
  const ours = runners[0]!;
  return runners.map((runner) => {
    const ratio = median(ours.ns.map((ns, round) => ns / runner.ns[round]!));
    const row: Row = {
      bench: bench.name,
      unit: bench.unit,
      contender: runner.contender.name,
      nsPerUnit: median(runner.ns),
      ratio,
      hash: runner.hash.toString(16).padStart(8, "0"),
    };
    if (bench.goal?.peer === runner.contender.name)
      row.goal = `goal ${bench.goal.number}: <= ${bench.goal.atMost}, ${ratio <= bench.goal.atMost ? "met" : "missed"}`;
    return row;
  });
}

function table(rows: Row[]): string {
  const cells = [
    ["benchmark", "contender", "ns", "per", "ours/this", "hash", "goal"],
    ...rows.map((row, i) => [
      rows[i - 1]?.bench === row.bench ? "" : row.bench,
      row.contender,
      row.nsPerUnit.toFixed(2),
      row.unit,
      row.ratio.toFixed(2),
      row.hash,
      row.goal ?? "",
    ]),
  ];
  const widths = cells[0]!.map((_, column) => Math.max(...cells.map((line) => line[column]!.length)));
  const right = new Set([2, 4]);
  return cells
    .map((line) =>
      line
        .map((cell, i) => (right.has(i) ? cell.padStart(widths[i]!) : cell.padEnd(widths[i]!)))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

if (has("--against")) {
  const rounds = has("--rounds") ? Number(args[args.indexOf("--rounds") + 1]) : 21;
  await against(args[args.indexOf("--against") + 1] ?? "HEAD", { only, rounds });
  process.exit(0);
}
const files = benchFiles(top).map((file) => join(top, file));
const native = buildNative();
const rows: Row[] = [];
for (const file of files) {
  const { benches } = (await import(pathToFileURL(file).href)) as { benches: readonly Bench[] };
  for (const bench of benches) {
    if (only && !file.includes(only) && !bench.name.includes(only)) continue;
    if (!has("--json")) process.stderr.write(`${bench.name} ...\n`);
    rows.push(...(await runBench(bench, native)));
  }
}
if (has("--json")) process.stdout.write(`${JSON.stringify({ schema: "dmalink.bench/1", smoke, rows }, null, 2)}\n`);
else if (smoke) process.stdout.write(`${new Set(rows.map((row) => row.bench)).size} benchmarks ran small and agreed\n`);
else process.stdout.write(`${table(rows)}\n`);
if (has("--write")) {
  const machine = `${cpus()[0]?.model ?? "unknown processor"}, ${cpus().length} cores, ${platform()} ${release()} ${arch()}, Node ${process.version}`;
  const text = `# Benchmark results\n\nMachine: ${machine}. Medians of ${rounds} interleaved rounds; \`ours/this\` is the first contender's time over this\none's, so below 1 we are faster. Made by \`npm run bench -- --write\`; absolute numbers drift, ratios hold.\n\n\`\`\`\n${table(rows)}\n\`\`\`\n`;
  writeFileSync(join(top, "bench/RESULTS.md"), text);
}
