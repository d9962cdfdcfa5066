/**
 * `npm run bench -- --against REV`: is this tree faster than another revision, or slower?
 *
 *     npm run bench -- --against HEAD~1 --only "through the API"
 *     npm run bench -- --against c03a2f2 --only pagetable --rounds 41
 *
 * Idea: both revisions' contenders live in processes of their own and take turns in short rounds, so that what else the machine
 * does meets both; and both stay on one core: where others use a machine, its cores differ by more than revisions do. The ratio is of
 * each pair of neighbouring rounds; printed are the median and the middle half of them: if that lies on both sides of 1, nothing has
 * been shown. What is in one revision only is named.
 */
import { type ChildProcess, fork, spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { cpus } from "node:os";
import { join } from "node:path";
import { benchFiles, TOP, withRevision } from "./bench-trees.ts";
import type { Answer, Order } from "./bench-worker.ts";

/** What is to be compared, and how long. */
export interface AgainstOptions {
  /** Names of files or benchmarks must contain it. */
  readonly only: string | undefined;
  /** Pairs of rounds. */
  readonly rounds: number;
}

/** About as long is a round. */
const ROUND_NS = 30e6;

class Worker {
  readonly #child: ChildProcess;

  constructor(tree: string, file: string) {
    this.#child = fork(join(TOP, "tools/bench-worker.ts"), [tree, file], { execArgv: ["--import", "tsx"] });
  }

  ask(order: Order): Promise<Answer> {
    return new Promise((done, failed) => {
      const ended = (): void => failed(new Error(`a benchmark ended at ${JSON.stringify(order)}`));
      this.#child.once("exit", ended);
      this.#child.once("message", (answer) => {
        this.#child.removeListener("exit", ended);
        done(answer as Answer);
      });
      this.#child.send(order);
    });
  }

  end(): void {
    this.#child.removeAllListeners("exit");
    this.#child.disconnect();
  }
}

const quantile = (sorted: readonly number[], part: number): number =>
  sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))]!;

/** Runs one contender on both sides, turn by turn; a line of the table. */
async function compare(
  sides: readonly [Worker, Worker],
  order: Order & { ask: "prepare" },
  full: number,
  rounds: number,
): Promise<string> {
  for (const side of sides) await side.ask(order);
  let units = Math.max(1, full >> 3);
  for (let warmUp = 0; warmUp < 6; warmUp++) {
    const [ours] = [await sides[0].ask({ ask: "run", units }), await sides[1].ask({ ask: "run", units })];
    units = Math.max(1, Math.min(full * 4, Math.round((ROUND_NS * ours.units) / ours.ns)));
  }
  const times: [number[], number[]] = [[], []];
  let hashes: readonly number[] = [];
  for (let round = 0; round < rounds; round++) {
    const first = round & 1; // who goes first pays for what the round before left
    const answers: Answer[] = [];
    for (const side of [first, 1 - first]) answers[side] = await sides[side]!.ask({ ask: "run", units });
    for (const side of [0, 1] as const) times[side].push(answers[side]!.ns / answers[side]!.units);
    hashes = answers.map(({ hash }) => hash);
  }
  const ratios = times[0].map((ns, round) => ns / times[1][round]!).sort((a, b) => a - b);
  const [ours, theirs] = times.map((ns) =>
    quantile(
      [...ns].sort((a, b) => a - b),
      0.5,
    )
      .toFixed(2)
      .padStart(10),
  );
  const [low, middle, high] = [0.25, 0.5, 0.75].map((part) => quantile(ratios, part));
  const verdict = high! < 1 ? "faster" : low! > 1 ? "slower" : "";
  const spread = `${low!.toFixed(3)}..${high!.toFixed(3)}`;
  const differs = hashes[0] === hashes[1] ? "" : "  computes something else";
  return `${ours}${theirs}${middle!.toFixed(3).padStart(8)}  ${spread}  ${verdict.padEnd(6)}  ${order.bench}: ${order.contender}${differs}`;
}

/** Keeps this process, and those that it starts, on one core; false where nobody can. */
function onOneCore(): boolean {
  return spawnSync("taskset", ["-cp", String(cpus().length - 1), String(process.pid)]).status === 0;
}

/** Prints the table, a line as soon as it is known. */
export async function against(revision: string, { only, rounds }: AgainstOptions): Promise<void> {
  if (!onOneCore())
    process.stderr.write("no taskset here, so the two may run on cores that differ: a ratio may be theirs\n");
  await withRevision(revision, async (tree, commit) => {
    process.stdout.write(`   ns here${commit.slice(0, 8).padStart(10)}   ratio  middle half\n`);
    for (const file of benchFiles(TOP)) {
      if (!existsSync(join(tree, file))) {
        if (only === undefined || file.includes(only)) process.stdout.write(`only here: ${file}\n`);
        continue;
      }
      const sides = [new Worker(TOP, file), new Worker(tree, file)] as const;
      try {
        const theirs = new Map((await sides[1].ask({ ask: "list" })).benches?.map((b) => [b.name, b.contenders]));
        for (const { name: bench, contenders, full } of (await sides[0].ask({ ask: "list" })).benches ?? []) {
          if (only !== undefined && !file.includes(only) && !bench.includes(only)) continue;
          for (const contender of contenders) {
            const line = theirs.get(bench)?.includes(contender)
              ? await compare(sides, { ask: "prepare", bench, contender }, full, rounds)
              : `only here: ${bench}: ${contender}`;
            process.stdout.write(`${line}\n`);
          }
        }
      } finally {
        for (const side of sides) side.end();
      }
    }
  });
}
