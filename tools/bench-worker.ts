/**
 * The other side of `npm run bench -- --against` and `npm run bench:instructions`: runs the contenders of one benchmark file of
 * one source tree, this one or another revision's, each when it is told to.
 *
 *     bench-worker.ts TREE FILE                                 answers its parent's messages, see {@link Order}
 *     bench-worker.ts TREE FILE BENCH CONTENDER UNITS ROUNDS    runs one contender so many times, and ends
 *
 * Idea: the worker is always this revision's, the code it measures is TREE's, so a revision without it can be measured.
 * One process for each tree: what the engine learnt of one revision's objects is not the other's.
 */
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import type { Bench, Result } from "../bench/bench.ts";
import { Random } from "../src/base/index.ts";

/** What the parent asks for. */
export type Order =
  | { readonly ask: "list" }
  | { readonly ask: "prepare"; readonly bench: string; readonly contender: string }
  | { readonly ask: "run"; readonly units: number };

/** What it is told; `list` is answered by names, `prepare` by zeros. */
export interface Answer {
  readonly benches?: readonly {
    readonly name: string;
    readonly contenders: readonly string[];
    readonly full: number;
  }[];
  readonly ns: number;
  readonly units: number;
  readonly hash: number;
}

const [tree = ".", file = "", ...single] = process.argv.slice(2);
const { benches } = (await import(pathToFileURL(join(tree, file)).href)) as { benches: readonly Bench[] };

type Work = (units: number) => Result | Promise<Result>;

function prepare(benchName: string, contenderName: string): Work {
  const bench = benches.find(({ name }) => name === benchName);
  const contender = bench?.contenders.find(({ name }) => name === contenderName);
  if (contender === undefined || "native" in contender) throw new Error(`no ${benchName}: ${contenderName} in ${file}`);
  return contender.prepare(Random.fromSeed(0x5eed));
}

/** Processor time, so that being made to wait for others does not count. */
async function timed(work: Work, units: number): Promise<Answer> {
  const start = process.cpuUsage();
  const result = await work(units);
  const { user, system } = process.cpuUsage(start);
  return { ns: (user + system) * 1000, units: result.units, hash: result.hash >>> 0 };
}

const list = (): Answer => ({
  benches: benches.map(({ name, contenders, full }) => ({
    name,
    full,
    contenders: contenders.filter((contender) => !("native" in contender)).map((contender) => contender.name),
  })),
  ns: 0,
  units: 0,
  hash: 0,
});

if (single.length === 4) {
  const [bench, contender, units, rounds] = single as [string, string, string, string];
  const work = prepare(bench, contender);
  for (let round = 0; round < Number(rounds); round++) await work(Number(units));
  process.exit(0);
}

let work: Work | undefined;
process.on("message", async (order: Order) => {
  if (order.ask === "list") process.send!(list());
  else if (order.ask === "prepare") {
    work = prepare(order.bench, order.contender);
    process.send!({ ns: 0, units: 0, hash: 0 } satisfies Answer);
  } else process.send!(await timed(work!, order.units));
});
