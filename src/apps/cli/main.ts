#!/usr/bin/env node
/**
 * dmalink, the program: reads the command line, and says in an exit code how it went.
 *
 * 0 clean, 1 findings (or a byte that came out wrong), 2 usage or bad input, 3 environment, 70 a fault of dmalink itself,
 * 130 interrupted. Data goes to stdout, messages to stderr. Each command's code is loaded when it is used, so that --help is quick.
 */
import { cac } from "cac";
import { DmaError } from "../../base/index.ts";
import { FORMAT_NAMES } from "../../layouts/pagetable/index.ts";
import { marked, plain, unmarked } from "./arguments.ts";
import { EnvironmentError } from "./environment.ts";
import { say } from "./terminal.ts";

const VERSION = "0.1.0";

class UsageError extends Error {}

async function run(argv: string[]): Promise<number> {
  const cli = cac("dmalink");
  let work: (() => Promise<number>) | undefined;
  const json = "machine-readable, on stdout";

  cli
    .command("record", "record what this machine maps for DMA (Linux, as root)")
    .usage("record [--for 10s] [-o FILE] [--device NAME] [--probes] [-- COMMAND]")
    .option("--for <time>", "how long: 10s, 500ms, 2m; without it and without a command, until Ctrl-C")
    .option("-o, --output <file>", "the trace", { default: "trace.dat" })
    .option("--device <name>", "only this device: 0000:00:04.0; may be given again")
    .option("--probes", "also the two-step functions, which have no tracepoints (Linux 6.16 and newer)")
    .option("--buffer <size>", "memory per CPU for events not yet written", { default: "20M" })
    .option("--print-script", "print a shell script that does it, for a machine without Node")
    .option("--json", json)
    .example("  sudo dmalink record --for 10s --probes -o trace.dat")
    .example("  sudo dmalink record -- dd if=/dev/nvme0n1 of=/dev/null bs=1M count=100 iflag=direct")
    .action((options: Record<string, unknown>) => {
      const forMs = options.for === undefined ? undefined : durationMs("--for", options.for);
      const bufferKiB = Math.ceil(sizeBytes("--buffer", options.buffer) / 1024);
      if (bufferKiB < 8) throw new UsageError("--buffer: at least 8K a CPU is needed");
      work = async () =>
        (await import("./record.ts")).record({
          file: String(options.output),
          ...(forMs !== undefined && { forMs }),
          devices: listOf(options.device).map(pciName),
          probes: !!options.probes,
          bufferKiB,
          command: (options["--"] as string[] | undefined) ?? [],
          printScript: !!options.printScript,
          json: !!options.json,
        });
    });

  cli
    .command("check [...traces]", "what is wrong in recorded traces, and what to do")
    .option("--rule <name>", "this rule only; may be given again")
    .option("--device <name>", "this device only: 0000:00:04.0; may be given again")
    .option("--dma-dump <file>", "what was mapped at the start: debugfs dma-api/dump")
    .option("--snapshot <file>", "what was mapped at the start: page tables")
    .option("--root <address>", "the snapshot's root table, without a NAME.json")
    .option("--jobs <n>", "traces at once; default: one a processor")
    .option("--json", json)
    .option("--sarif", "SARIF 2.1.0, on stdout")
    .option("--best-effort", "judge what was read before damage")
    .example("  dmalink check trace.dat.gz --device 0000:00:04.0")
    .example("  dmalink check recorded/*.dat --jobs 4 --json")
    .action((traces: string[], options: Record<string, unknown>) => {
      if (traces.length === 0) throw new UsageError("check needs a trace");
      const many = (value: unknown): string[] =>
        value === undefined ? [] : [value].flat().flatMap((one) => String(one).split(","));
      const text = (value: unknown): string | undefined => (value === undefined ? undefined : String(value));
      const [rules, devices] = [many(options.rule), many(options.device)];
      const [dmaDump, snapshot, root] = [text(options.dmaDump), text(options.snapshot), text(options.root)];
      const jobs = options.jobs === undefined ? undefined : wholeNumber("--jobs", options.jobs, 1);
      if (root !== undefined && snapshot === undefined)
        throw new UsageError("--root is the root table of a snapshot: give --snapshot too");
      work = async () =>
        (await import("./check.ts")).check(traces, {
          version: VERSION,
          json: !!options.json,
          sarif: !!options.sarif,
          bestEffort: !!options.bestEffort,
          ...(rules.length > 0 && { rules }),
          ...(devices.length > 0 && { devices }),
          ...(dmaDump !== undefined && { dmaDump }),
          ...(snapshot !== undefined && { snapshot }),
          ...(root !== undefined && { root }),
          ...(jobs !== undefined && { jobs }),
        });
    });

  cli
    .command("stats <trace>", "what a trace holds, per event and device")
    .option("--json", json)
    .option("--best-effort", "report what was read before damage in the file")
    .example("  dmalink stats trace.dat.gz")
    .action((trace: string, options: Record<string, unknown>) => {
      work = async () =>
        (await import("./stats.ts")).stats(trace, { json: !!options.json, bestEffort: !!options.bestEffort });
    });

  cli
    .command("compare <trace>", "the same load under eight mapping strategies: what each costs")
    .option("--iommu <kind>", `page tables: ${FORMAT_NAMES.join(", ")}`, { default: FORMAT_NAMES[0] })
    .option("--mode <mode>", "invalidation: strict or lazy", { default: "strict" })
    .option("--caching-mode", "an IOMMU that caches absent entries, as those of virtual machines do")
    .option("--request-cap <size>", "map longer requests in pieces of this, such as 128K")
    .option("--what-if <question>", "huge-pages, iova-cache or lazy: the same load with that changed")
    .option("--as <device>", "nvme: the same load as NVMe commands too, by the driver on a simulated controller")
    .option(
      "--cost <file>",
      "prices for the predicted time, JSON: invalidationNs, pteWriteNs, iovaOpNs, iovaStepNs, callNs",
    )
    .option("--seed <n>", "seed of the bytes that are moved and checked", { default: 1 })
    .option("--json", json)
    .option("--best-effort", "replay what was read before damage in the file")
    .example("  dmalink compare trace.dat.gz --mode lazy")
    .example("  dmalink compare trace.dat.gz --what-if huge-pages")
    .example("  dmalink compare trace.dat.gz --as nvme")
    .action((trace: string, options: Record<string, unknown>) => {
      const iommu = oneOf("--iommu", options.iommu, FORMAT_NAMES);
      const mode = oneOf("--mode", options.mode, ["strict", "lazy"] as const);
      const seed = wholeNumber("--seed", options.seed, 0);
      const requestCap = options.requestCap === undefined ? undefined : sizeBytes("--request-cap", options.requestCap);
      const whatIf =
        options.whatIf === undefined
          ? undefined
          : oneOf("--what-if", options.whatIf, ["huge-pages", "iova-cache", "lazy"] as const);
      const as = options.as === undefined ? undefined : oneOf("--as", options.as, ["nvme"] as const);
      work = async () =>
        (await import("./compare.ts")).compareCommand(trace, {
          iommu,
          mode,
          seed,
          cachingMode: !!options.cachingMode,
          ...(requestCap !== undefined && { requestCap }),
          ...(whatIf !== undefined && { whatIf }),
          ...(as !== undefined && { as }),
          ...(options.cost !== undefined && { costFile: String(options.cost) }),
          json: !!options.json,
          bestEffort: !!options.bestEffort,
        });
    });

  cli
    .command("export <trace>", "the recording for other tools: Perfetto, Parquet, or one page to look at")
    .option("--perfetto <file>", "mappings, bytes mapped and findings over time, for ui.perfetto.dev")
    .option("--parquet <folder>", "events, mappings, requests and findings as tables")
    .option("--html <file>", "a report with pictures, in one file, without a network")
    .option("--json", json)
    .option("--best-effort", "export what was read before damage in the file")
    .example("  dmalink export trace.dat.gz --html report.html --perfetto trace.pftrace")
    .action((trace: string, options: Record<string, unknown>) => {
      const targets = ["perfetto", "parquet", "html"].filter((name) => options[name] !== undefined);
      if (targets.length === 0)
        throw new UsageError("export where to? --perfetto FILE, --parquet FOLDER or --html FILE");
      work = async () =>
        (await import("./export.ts")).exportCommand(trace, {
          ...Object.fromEntries(targets.map((name) => [name, String(options[name])])),
          json: !!options.json,
          bestEffort: !!options.bestEffort,
        });
    });

  cli
    .command("query <trace> [sql]", "ask about a recording in SQL; without SQL, what the tables are")
    .option("--json", json)
    .option("--best-effort", "ask about what was read before damage in the file")
    .example("  dmalink query trace.dat.gz 'select device, count(*) from mappings group by device'")
    .action((trace: string, sql: string | undefined, options: Record<string, unknown>) => {
      work = async () =>
        (await import("./query.ts")).query(trace, sql, { json: !!options.json, bestEffort: !!options.bestEffort });
    });

  cli
    .command("tables <snapshot>", "decode page tables dumped from a machine, from the VT-d root pointer down")
    .option("--root <address>", "root table address or RTADDR register, if no NAME.json lies beside the snapshot")
    .option("--device <bdf>", "this device only: 0000:00:04.0")
    .option("--tree", "draw the tree")
    .option("--json", json)
    .example("  dmalink tables machine.snap.gz --tree")
    .action((snapshot: string, options: Record<string, unknown>) => {
      work = async () =>
        (await import("./tables.ts")).tables(snapshot, {
          ...(options.root !== undefined && { root: String(options.root) }),
          ...(options.device !== undefined && { device: String(options.device) }),
          json: !!options.json,
          tree: !!options.tree,
        });
    });

  cli
    .command("sim [scenario]", "whole machines from seeds, with faults: mapping (default) or nvme")
    .option("--seed <n>", "this seed only")
    .option("--seeds <a..b>", "these seeds (default: 1..100)")
    .option("--minutes <n>", "as many seeds as fit, from the first on")
    .option("--trace <file>", "with --seed: what it did, as a trace.dat for dmalink check and stats")
    .option("--json", json)
    .example("  dmalink sim --seeds 1..500")
    .example("  dmalink sim nvme --seed 314")
    .action((scenario: string | undefined, options: Record<string, unknown>) => {
      const name = oneOf("scenario", scenario ?? "mapping", ["mapping", "nvme"] as const);
      if (options.seed !== undefined && options.seeds !== undefined)
        throw new UsageError("--seed and --seeds: one of them says which seeds");
      const seed = options.seed === undefined ? undefined : wholeNumber("--seed", options.seed, 0);
      const range = seed === undefined ? String(options.seeds ?? "1..100") : `${seed}..${seed}`;
      const match = /^(\d{1,15})\.\.(\d{1,15})$/.exec(range);
      if (!match || Number(match[1]) > Number(match[2]))
        throw new UsageError(`--seeds ${range}: A..B with A up to B is needed, such as 1..500`);
      const minutes = options.minutes === undefined ? undefined : Number(options.minutes);
      if (minutes !== undefined && !(minutes > 0))
        throw new UsageError(`--minutes ${String(options.minutes)}: a number above 0 is needed`);
      const [first, last] = [Number(match[1]), Number(match[2])];
      if (options.trace !== undefined && first !== last) throw new UsageError("--trace: one seed is needed, --seed N");
      work = async () =>
        (await import("./sim.ts")).sim({
          scenario: name,
          first,
          last,
          ...(minutes !== undefined && { minutes }),
          ...(options.trace !== undefined && { traceFile: String(options.trace) }),
          json: !!options.json,
        });
    });

  cli
    .command("doctor", "what this machine has for real devices, and what is missing")
    .option("--json", json)
    .example("  dmalink doctor")
    .action((options: Record<string, unknown>) => {
      work = async () => (await import("./doctor.ts")).doctor({ json: !!options.json });
    });

  for (const [name, what, yes] of [
    [
      "bind",
      "give a device to vfio-pci, so that a program can drive it (Linux, as root)",
      "do it; without it nothing is changed, and the commands that would do it are printed (exit code 3)",
    ],
    ["unbind", "give a device back to the driver that had it", "do it; without it nothing is changed (exit code 3)"],
  ] as const)
    cli
      .command(`${name} <device>`, what)
      .option("--yes", yes)
      .option("--json", json)
      .example(`  sudo dmalink ${name} 0000:00:04.0 --yes`)
      .action((device: string, options: Record<string, unknown>) => {
        work = async () => (await import("./bind.ts"))[name](device, { yes: !!options.yes, json: !!options.json });
      });

  cli.help((sections) => [
    ...sections,
    ...(cli.matchedCommand ? [] : [{ title: "Example", body: "  $ dmalink compare trace.dat.gz --mode lazy" }]),
    {
      title: "Exit codes",
      body: "  0 clean · 1 findings · 2 usage or bad input · 3 environment · 70 fault of dmalink · 130 interrupted",
    },
  ]);
  cli.version(VERSION);
  try {
    const commands = cli.commands.map(({ name }) => name);
    cli.parse(marked(argv, commands, ["record"]), { run: false });
    cli.args = cli.args.map(plain);
    for (const [name, value] of Object.entries(cli.options)) cli.options[name] = typed(name, value);
    if (cli.options.help || cli.options.version) return 0;
    if (!cli.matchedCommand) {
      const [asked] = cli.args;
      if (asked !== undefined) throw new UsageError(`no command "${asked}"`);
      cli.outputHelp();
      return 2;
    }
    await cli.runMatchedCommand();
  } catch (error) {
    if (error instanceof UsageError || (error as Error).name === "CACError") {
      const help = cli.matchedCommandName ? `dmalink ${cli.matchedCommandName} --help` : "dmalink --help";
      say(`dmalink: ${unmarked((error as Error).message)}; ${help} shows how it is used\n`);
      return 2;
    }
    throw error;
  }
  return (await work?.()) ?? 0;
}

/** Options that may be given several times. */
const REPEATED: readonly string[] = ["device", "rule", "--"];

/** The value of an option as it was typed. */
function typed(name: string, value: unknown): unknown {
  if (!Array.isArray(value)) return plain(value);
  if (REPEATED.includes(name) || value.every((one) => typeof one === "boolean")) return value.map(plain);
  throw new UsageError(
    `${name.length > 1 ? "--" : "-"}${name} is given ${value.length} times, with ${value.map(plain).join(" and ")}: once is enough`,
  );
}

function oneOf<T extends string>(option: string, value: unknown, allowed: readonly T[]): T {
  const found = allowed.find((item) => item === value);
  if (found === undefined) throw new UsageError(`${option} ${String(value)}: one of ${allowed.join(", ")} is needed`);
  return found;
}

function wholeNumber(option: string, value: unknown, least: number): number {
  const text = String(value);
  if (!/^\d{1,15}$/.test(text) || Number(text) < least)
    throw new UsageError(`${option} ${text}: a whole number from ${least} on is needed`);
  return Number(text);
}

/** A time with its unit, in milliseconds. */
function durationMs(option: string, value: unknown): number {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m)?$/.exec(String(value));
  const factor = { ms: 1, s: 1000, m: 60_000 }[match?.[2] ?? "s"]!;
  if (!match || Number(match[1]) === 0)
    throw new UsageError(`${option} ${String(value)}: a time such as 10s, 500ms or 2m is needed`);
  return Number(match[1]) * factor;
}

/** A size with its unit, in bytes. */
function sizeBytes(option: string, value: unknown): number {
  const match = /^(\d+)([KMG])?(?:i?B)?$/i.exec(String(value));
  if (!match || Number(match[1]) === 0)
    throw new UsageError(`${option} ${String(value)}: a size such as 128K or 20M is needed`);
  return Number(match[1]) * 1024 ** " KMG".indexOf(match[2]?.toUpperCase() ?? " ");
}

/** An option that may be given several times. */
const listOf = (value: unknown): string[] =>
  value === undefined ? [] : (Array.isArray(value) ? value : [value]).map(String);

/** A PCI address in full; other names of devices as they are. */
const pciName = (name: string): string => (/^[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$/i.test(name) ? `0000:${name}` : name);

// An interrupt ends the process at once, which a shell shows as 130; a command with something to put back listens itself.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code === "EPIPE") process.exit(0); // the reader has seen enough
  say(`dmalink: cannot write the answer: ${error.message}\n`);
  process.exit(3);
});
process.stderr.on("error", () => undefined); // nobody listens; the exit code still says it
process.on("uncaughtException", (error) => process.exit(failed(error))); // of a stream that nobody waits for
try {
  process.exitCode = await run(process.argv);
} catch (error) {
  process.exitCode = failed(error);
}

/** Says what ended the program; the exit code, which is never that of a finding. */
function failed(error: unknown): number {
  const { message, stack, syscall } = error as NodeJS.ErrnoException;
  const expected = error instanceof DmaError || error instanceof EnvironmentError || syscall !== undefined;
  say(`dmalink: ${expected ? message : `this is a fault of dmalink, please report it:\n${stack ?? error}`}\n`);
  if (!expected) return 70;
  return error instanceof DmaError ? 2 : 3;
}
