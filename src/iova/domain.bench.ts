/** The allocator: cached, and tree with 1024 live ranges, against the slow walk. One operation is one allocation and one free. */
import { type Bench, fold, HASH } from "../../bench/bench.ts";
import { SlowWalk } from "../../test/models/slow-walk.ts";
import type { Random } from "../base/index.ts";
import { IovaDomain } from "./domain.ts";

const LIMIT = 0xfffff;

const cached = (checked: boolean, largest: number) => () => {
  const domain = new IovaDomain({ checked });
  return (units: number) => {
    let hash = HASH;
    for (let i = 0; i < units; i++) {
      const size = 1 + ((i * 7) % largest);
      const pfn = domain.allocateFast(size, LIMIT, true);
      domain.freeFast(pfn, size);
      hash = fold(hash, pfn);
    }
    return { units, hash };
  };
};

interface Tree {
  allocate(size: number): number;
  free(pfn: number): void;
}
const fast = (): Tree => {
  const domain = new IovaDomain({ checked: false });
  return { allocate: (size) => domain.allocateTree(size, LIMIT, true), free: (pfn) => void domain.freeTree(pfn) };
};
const slow = (): Tree => {
  const model = new SlowWalk(1);
  return { allocate: (size) => model.allocate(size, LIMIT, true), free: (pfn) => model.free(pfn) };
};
const tree = (make: () => Tree, sizeOf: (random: Random) => number) => (random: Random) => {
  const space = make();
  const live = Float64Array.from({ length: 1024 }, () => space.allocate(sizeOf(random)));
  return (units: number) => {
    let hash = HASH;
    for (let i = 0; i < units; i++) {
      const at = random.below(1024);
      space.free(live[at]!);
      live[at] = space.allocate(sizeOf(random));
      hash = fold(hash, live[at]!);
    }
    return { units, hash };
  };
};

const treeBench = (name: string, sizeOf: (random: Random) => number): Bench => ({
  name: `iova tree, 1024 live, ${name}`,
  unit: "pair",
  smoke: 500,
  full: 20_000,
  contenders: [
    { name: "ours", prepare: tree(fast, sizeOf) },
    { name: "slow walk", prepare: tree(slow, sizeOf) },
  ],
});

const cachedBench = (name: string, largest: number): Bench => ({
  name: `iova cached, ${name}`,
  unit: "pair",
  smoke: 1_000,
  full: 1_000_000,
  contenders: [
    { name: "unchecked", prepare: cached(false, largest) },
    { name: "checked", prepare: cached(true, largest) },
  ],
});

export const benches: readonly Bench[] = [
  cachedBench("1 page", 1),
  cachedBench("1 to 32 pages", 32),
  treeBench("1 page", () => 1),
  treeBench("1 to 256 pages", (random) => 1 + random.below(256)),
  treeBench("256 pages", () => 256),
];
