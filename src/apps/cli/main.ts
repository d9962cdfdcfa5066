#!/usr/bin/env node
/**
 * dmalink, the program: reads the command line, and says in an exit code how it went.
 *
 * 0 clean, 1 findings (or a byte that came out wrong), 2 usage or bad input, 3 environment, 130 interrupted. Data goes to
 * stdout, messages to stderr. Each command's code is loaded when it is used, so that --help is quick.
 */
import { cac } from "cac";
import { DmaError } from "../../base/index.ts";
import { STANDARD_INPUT } from "./input.ts";

const VERSION = "0.1.0";

class UsageError extends Error {}

async function run(argv: string[]): Promise<number> {
  const cli = cac("dmalink");
  let work: (() => Promise<number>) | undefined;
  const json = "machine-readable, on stdout";

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
    .command("compare <trace>", "the same load as one-shot, scatterlist and two-step: what each costs")
    .option("--iommu <kind>", "page tables: vtd, x86-64 or amdv1", { default: "vtd" })
    .option("--mode <mode>", "invalidation: strict or lazy", { default: "strict" })
    .option("--seed <n>", "seed of the bytes that are moved and checked", { default: 1 })
    .option("--json", json)
    .option("--best-effort", "replay what was read before damage in the file")
    .example("  dmalink compare trace.dat.gz --mode lazy")
    .action((trace: string, options: Record<string, unknown>) => {
      const iommu = oneOf("--iommu", options.iommu, ["vtd", "x86-64", "amdv1"] as const);
      const mode = oneOf("--mode", options.mode, ["strict", "lazy"] as const);
      const seed = Number(options.seed);
      if (!Number.isSafeInteger(seed) || seed < 0)
        throw new UsageError(`--seed ${String(options.seed)}: a whole number from 0 on is needed`);
      work = async () =>
        (await import("./compare.ts")).compareCommand(trace, {
          iommu,
          mode,
          seed,
          json: !!options.json,
          bestEffort: !!options.bestEffort,
        });
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

  cli.help((sections) => [
    ...sections,
    ...(cli.matchedCommand ? [] : [{ title: "Example", body: "  $ dmalink compare trace.dat.gz --mode lazy" }]),
    { title: "Exit codes", body: "  0 clean · 1 findings · 2 usage or bad input · 3 environment · 130 interrupted" },
  ]);
  cli.version(VERSION);
  try {
    cli.parse(
      argv.map((argument) => (argument === "-" ? STANDARD_INPUT : argument)), // a lone dash is lost by the parser
      { run: false },
    );
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
      process.stderr.write(`dmalink: ${(error as Error).message}; ${help} shows how it is used\n`);
      return 2;
    }
    throw error;
  }
  return (await work?.()) ?? 0;
}

function oneOf<T extends string>(option: string, value: unknown, allowed: readonly T[]): T {
  const found = allowed.find((item) => item === value);
  if (found === undefined) throw new UsageError(`${option} ${String(value)}: one of ${allowed.join(", ")} is needed`);
  return found;
}

// An interrupt ends the process at once, which a shell shows as 130: there is nothing to put back.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code === "EPIPE") process.exit(0); // the reader has seen enough
  process.stderr.write(`dmalink: cannot write the answer: ${error.message}\n`);
  process.exit(3);
});
try {
  process.exitCode = await run(process.argv);
} catch (error) {
  if (!(error instanceof DmaError)) throw error;
  process.stderr.write(`dmalink: ${error.message}\n`);
  process.exitCode = 2;
}
