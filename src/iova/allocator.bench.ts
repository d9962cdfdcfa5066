/**
 * The allocator: cached, and tree with 1024 live ranges, against the plain walk in C. An operation is one allocation or
 * one free. Each round starts from a fresh domain and the same draws, so its hash is that of `bench/native`.
 */
import { type Bench, fold, HASH } from "../../bench/bench.ts";
import type { Random } from "../base/index.ts";
import { IovaAllocator } from "./allocator.ts";

const LIMIT = 0xfffff;
const LIVE = 1024;

const cached = (checked: boolean, largest: number) => () => (units: number) => {
  const domain = new IovaAllocator({ checked });
  const pairs = units >> 1;
  let hash = HASH;
  for (let i = 0; i < pairs; i++) {
    const size = 1 + ((i * 7) & (largest - 1)); // a power of two: a division would cost more than the work
    const pfn = domain.allocateFast(size, LIMIT, true);
    domain.freeFast(pfn, size);
    hash = fold(hash, pfn);
  }
  return { units: pairs * 2, hash };
};

const tree = (checked: boolean, smallest: number, largest: number) => (random: Random) => (units: number) => {
  const draws = random.fork("load");
  const kinds = largest - smallest + 1;
  const domain = new IovaAllocator({ checked });
  const allocate = (): number => domain.allocateTree(smallest + draws.below(kinds), LIMIT, true);
  const live = Float64Array.from({ length: LIVE }, allocate);
  const pairs = units >> 1;
  let hash = HASH;
  for (let i = 0; i < pairs; i++) {
    const at = draws.below(LIVE);
    domain.freeTree(live[at]!);
    const pfn = allocate();
    live[at] = pfn;
    hash = fold(hash, pfn);
  }
  return { units: pairs * 2, hash };
};

const bench = (
  name: string,
  native: string,
  full: number,
  prepare: (checked: boolean) => (random: Random) => (units: number) => { units: number; hash: number },
): Bench => ({
  name: `iova ${name}`,
  unit: "operation",
  smoke: 2_000,
  full,
  contenders: [
    { name: "checked", prepare: prepare(true) },
    { name: "unchecked", prepare: prepare(false) },
    { name: "C, plain walk", native },
  ],
});

export const benches: readonly Bench[] = [
  bench("cached, 1 page", "iova-cached", 4_000_000, (checked) => cached(checked, 1)),
  bench("cached, 1 to 32 pages", "iova-mixed", 4_000_000, (checked) => cached(checked, 32)),
  bench("tree, 1024 live, 1 page", "iova-tree-1", 400_000, (checked) => tree(checked, 1, 1)),
  bench("tree, 1024 live, 1 to 256 pages", "iova-tree-mixed", 400_000, (checked) => tree(checked, 1, 256)),
  bench("tree, 1024 live, 256 pages", "iova-tree-256", 400_000, (checked) => tree(checked, 256, 256)),
];
