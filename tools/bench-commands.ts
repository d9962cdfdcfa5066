/**
 * Whole commands on large traces, as a user runs them: processor time and memory of each, a million events.
 *
 *     npm run bench:commands                        1 million events
 *     npm run bench:commands -- --events 10000000   the size that the goals are of
 *     npm run bench:commands -- --only compare      commands whose name contains that
 *     npm run bench:commands -- --trace SIX.dat     a recording of one's own, of version 6
 *     npm run bench:commands -- --write             the table into bench/COMMANDS.md
 *
 * Idea: recorded loads, repeated (repeat-trace.ts) until they are large; each command is a process of its own from the built
 * program, which says at its end what it used. Processor time, not time on the wall: others may use the machine. Medians of three
 * runs up to 2 million events, one run beyond.
 */
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { arch, cpus, platform, tmpdir, totalmem } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { gunzipSync } from "node:zlib";

const top = resolve(dirname(fileURLToPath(import.meta.url)), "..");
const program = join(top, "dist/apps/cli/main.js");
const args = process.argv.slice(2);
const valueAfter = (flag: string): string | undefined =>
  args.includes(flag) ? args[args.indexOf(flag) + 1] : undefined;
const events = Number(valueAfter("--events") ?? 1_000_000);
const only = valueAfter("--only") ?? "";
const rounds = events <= 2_000_000 ? 3 : 1;
if (!(Number.isSafeInteger(events) && events >= 10_000)) throw new Error("--events: a number from 10000 on is needed");

/** Recordings of version 6, which can be repeated: what each is of. */
const RECORDED: Readonly<Record<string, string>> = {
  "strict-mix7030": "NVMe, scattered requests",
  "strict-reload-e1000e": "a network driver, loaded and unloaded",
};
const own = valueAfter("--trace");
const LOADS = own === undefined ? RECORDED : { [basename(own).replace(/\.dat(\.gz)?$/, "")]: own };

const folder = mkdtempSync(join(tmpdir(), "dmalink-bench-"));
process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
process.on("SIGINT", () => process.exit(130));

interface Used {
  readonly cpuSeconds: number;
  readonly residentBytes: number;
}

interface Work {
  readonly name: string;
  /** Seconds of processor time a million events, and bytes, that are to be reached. */
  readonly goalSeconds: number | undefined;
  readonly goalBytes?: number;
  words(trace: string): readonly string[];
}

const MIB = 2 ** 20;
const RESIDENT = 300 * MIB;
const QUESTION = "select device, count(*) from mappings group by device";
const WORKS: readonly Work[] = [
  { name: "check", goalSeconds: 0.6, goalBytes: RESIDENT, words: (trace) => ["check", trace, "--json"] },
  { name: "stats", goalSeconds: 1, goalBytes: RESIDENT, words: (trace) => ["stats", trace, "--json"] },
  { name: "compare", goalSeconds: 12, goalBytes: RESIDENT, words: (trace) => ["compare", trace, "--json"] },
  { name: "query, the first time", goalSeconds: 3, words: (trace) => ["query", trace, QUESTION, "--no-cache"] },
  { name: "query, again", goalSeconds: 0.3, words: (trace) => ["query", trace, QUESTION] },
  {
    name: "export --html",
    goalSeconds: undefined,
    goalBytes: RESIDENT,
    words: (trace) => ["export", trace, "--html", join(folder, "page.html")],
  },
  {
    name: "export --perfetto",
    goalSeconds: undefined,
    words: (trace) => ["export", trace, "--perfetto", join(folder, "trace.pftrace")],
  },
  { name: "diff", goalSeconds: undefined, words: (trace) => ["diff", trace, trace, "--json"] },
];

/** Runs the program; what it used, by its own account when it ends. */
function run(words: readonly string[]): Used {
  const account = join(folder, "used.json");
  const preload = `import { writeFileSync } from "node:fs"; process.on("exit", () => writeFileSync(${JSON.stringify(account)}, JSON.stringify(process.resourceUsage())));`;
  const { status, stderr } = spawnSync(
    process.execPath,
    ["--import", `data:text/javascript,${encodeURIComponent(preload)}`, program, ...words],
    { env: { ...process.env, XDG_CACHE_HOME: join(folder, "cache") }, encoding: "utf8", maxBuffer: 2 ** 30 },
  );
  if (status !== 0 && status !== 1) throw new Error(`dmalink ${words.join(" ")} ended with ${status}: ${stderr}`);
  const { userCPUTime, systemCPUTime, maxRSS } = JSON.parse(readFileSync(account, "utf8")) as NodeJS.ResourceUsage;
  return { cpuSeconds: (userCPUTime + systemCPUTime) / 1e6, residentBytes: maxRSS * 1024 };
}

/** The recording `name`, repeated. */
function largeTrace(name: string): string {
  const [six, large] = [join(folder, `${name}.6.dat`), join(folder, `${name}.dat`)];
  const recorded = readFileSync(own ?? join(top, `test/golden/traces/${name}.dat.gz`));
  writeFileSync(six, recorded[0] === 0x1f ? gunzipSync(recorded) : recorded);
  const repeat = ["--import", "tsx", join(top, "tools/repeat-trace.ts"), six, String(events), large];
  const made = spawnSync(process.execPath, repeat, { cwd: top, encoding: "utf8" });
  if (made.status !== 0) throw new Error(made.stderr);
  return large;
}

const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[values.length >> 1]!;

const lines = ["| load | command | CPU s a million events | goal | resident MiB | goal |", "|---|---|---|---|---|---|"];
for (const [name, meaning] of Object.entries(LOADS)) {
  const trace = largeTrace(name);
  for (const work of WORKS.filter((one) => one.name.includes(only))) {
    if (work.name === "query, again") run(work.words(trace));
    const used = Array.from({ length: rounds }, () => run(work.words(trace)));
    // A question that is asked again does not read the trace: its time is its own.
    const millions = work.name === "query, again" ? 1 : events / 1e6;
    const seconds = median(used.map(({ cpuSeconds }) => cpuSeconds)) / millions;
    const resident = median(used.map(({ residentBytes }) => residentBytes)) / MIB;
    const cells = [
      `${name}: ${meaning}`,
      work.name,
      seconds.toFixed(2),
      work.goalSeconds === undefined ? "-" : String(work.goalSeconds),
      resident.toFixed(0),
      work.goalBytes === undefined ? "-" : String(work.goalBytes / MIB),
    ];
    process.stderr.write(`${cells.join("  ")}\n`);
    lines.push(`| ${cells.join(" | ")} |`);
  }
  rmSync(trace);
}
const [processor] = cpus();
const text = [
  "# Whole commands on large traces",
  "",
  `${events.toLocaleString("en-US")} events a trace; Node ${process.version}, ${platform()}-${arch()}, ${cpus().length} processors (${processor?.model.trim() ?? "unknown"}), ` +
    `${Math.round(totalmem() / 2 ** 30)} GiB; ${rounds === 1 ? "one run" : `medians of ${rounds} runs`}. Made by \`npm run bench:commands -- --events ${events} --write\`.`,
  "",
  ...lines,
  "",
].join("\n");
process.stdout.write(text);
if (args.includes("--write")) {
  mkdirSync(join(top, "bench"), { recursive: true });
  writeFileSync(join(top, "bench/COMMANDS.md"), text);
}
