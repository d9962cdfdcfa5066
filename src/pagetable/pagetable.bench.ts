/**
 * What page tables cost: link page by page, as a vector, whole ranges, superpages, look-up, relink; and all formats in one
 * process, where a call site that has seen many shapes must not fall off a cliff.
 *
 * Idea: the same plan (physical pages shuffled from a seed) on every format; the hash is of what the tables translate
 * to, so all formats and the C yardstick must agree. Not for: invalidation and address allocation, measured beside theirs.
 */
import { type Bench, type Contender, fold, HASH, type Result } from "../../bench/bench.ts";
import { Counters, type IovaPage, type PhysPage, type Random } from "../base/index.ts";
import { amdV1, READ, type TableLayout, vtdSecondStage, WRITE, x86_64 } from "../layouts/pagetable/index.ts";
import { Arena } from "./arena.ts";
import { Gather } from "./gather.ts";
import { PageTable } from "./page-table.ts";
import { LeafCursor } from "./tree.ts";

const FORMATS: readonly [string, () => TableLayout][] = [
  ["x86-64", () => x86_64()],
  ["VT-d second stage", () => vtdSecondStage()],
  ["AMD v1", () => amdV1()],
];
const PROT = READ | WRITE;
/** First pages of the ranges that requests use in turn: 64 MiB below 4 GiB. */
const RANGES = 64;
const rangeStart = (request: number): IovaPage => (0xf_c000 + (request % RANGES) * 256) as IovaPage;
/** Physical memory: 16 GiB from 4 GiB on. */
const FIRST_PHYS = 0x10_0000;
const PHYS_PAGES = 0x40_0000;

class Work {
  readonly table: PageTable;
  readonly gather = new Gather();

  constructor(layout: TableLayout) {
    const memory = new Arena({ basePage: 0x8000_0000 as PhysPage });
    this.table = new PageTable({ layout, memory, counters: new Counters() });
  }

  unmap(iova: IovaPage, pages: number): void {
    this.table.unmap(iova, pages, this.gather);
    this.table.complete(this.gather);
  }

  /** Folds in where `pages` from `iova` lead. */
  hash(hash: number, iova: number, pages: number): number {
    let result = hash;
    for (let page = 0; page < pages; page++) result = fold(result, this.table.lookup((iova + page) as IovaPage));
    return result;
  }
}

/** 4096 physical pages, no two adjacent. */
function shuffledPages(random: Random): Float64Array {
  return Float64Array.from({ length: 4096 }, () => FIRST_PHYS + random.below(PHYS_PAGES / 2) * 2);
}

function twoStep(work: Work, phys: Float64Array, units: number): Result {
  const requests = Math.ceil(units / 256);
  let hash = HASH;
  for (let request = 0; request < requests; request++) {
    const iova = rangeStart(request);
    const first = (request * 256) & 4095;
    const cursor = new LeafCursor();
    for (let i = 0; i < 256; i++) work.table.map((iova + i) as IovaPage, phys[first + i] as PhysPage, 1, PROT, cursor);
    if (request === requests - 1) hash = work.hash(hash, iova, 256);
    work.unmap(iova, 256);
  }
  return { units: requests * 256, hash };
}

const ONES = new Int32Array(256).fill(1);

function vector(work: Work, phys: Float64Array, units: number): Result {
  const requests = Math.ceil(units / 256);
  const runs = Array.from({ length: 16 }, (_, i) => phys.subarray(i * 256, i * 256 + 256));
  let hash = HASH;
  for (let request = 0; request < requests; request++) {
    const iova = rangeStart(request);
    work.table.mapRuns(iova, runs[request & 15]!, ONES, 256, PROT, new LeafCursor());
    if (request === requests - 1) hash = work.hash(hash, iova, 256);
    work.unmap(iova, 256);
  }
  return { units: requests * 256, hash };
}

/** 512 pages whose output is off by a page from any large leaf. */
function whole(work: Work, units: number): Result {
  const requests = Math.ceil(units / 512);
  let hash = HASH;
  for (let request = 0; request < requests; request++) {
    const iova = (0xf_c000 + (request & 31) * 512) as IovaPage;
    work.table.map(iova, (FIRST_PHYS + 1 + request * 2) as PhysPage, 512, PROT);
    if (request === requests - 1) hash = work.hash(hash, iova, 512);
    work.unmap(iova, 512);
  }
  return { units: requests * 512, hash };
}

function superpages(work: Work, units: number): Result {
  const requests = Math.ceil(units / 256);
  let hash = HASH;
  for (let request = 0; request < requests; request++) {
    const iova = (0x4_0000 + (request & 1) * 0x2_0000) as IovaPage;
    work.table.map(iova, (FIRST_PHYS + 512) as PhysPage, 256 * 512, PROT);
    if (request === requests - 1) hash = work.hash(hash, iova + 511, 1024);
    work.unmap(iova, 256 * 512);
  }
  return { units: requests * 256, hash };
}

/** 64 MiB mapped by single pages; the addresses to look up drawn beforehand. */
function lookups(layout: TableLayout, order: "random" | "sequential"): (random: Random) => (units: number) => Result {
  return (seed) => {
    const work = new Work(layout);
    const random = seed.fork("pages");
    const phys = shuffledPages(random);
    const pages = RANGES * 256;
    for (let i = 0; i < pages; i++) work.table.map((0xf_c000 + i) as IovaPage, phys[i & 4095] as PhysPage, 1, PROT);
    const asked = Int32Array.from(
      { length: 65_536 },
      (_, i) => 0xf_c000 + (order === "random" ? random.below(pages) : i % pages),
    );
    return (units) => {
      let hash = HASH | 0; // `fold`, as a signed number: the unsigned one would cost as much as the look-up
      for (let i = 0; i < units; i++)
        hash = Math.imul(hash ^ work.table.lookup(asked[i & 65_535] as IovaPage), 0x01000193);
      return { units, hash: hash >>> 0 };
    };
  };
}

function relink(work: Work, phys: Float64Array, units: number): Result {
  const { table } = work;
  for (let i = 0; i < 256; i++) table.map((0xf_c000 + i) as IovaPage, phys[i] as PhysPage, 1, PROT);
  for (let i = 0; i < units; i++) {
    const iova = (0xf_c000 + ((i * 97) & 255)) as IovaPage;
    work.unmap(iova, 1);
    table.map(iova, phys[i & 4095] as PhysPage, 1, PROT);
  }
  const hash = work.hash(HASH, 0xf_c000, 256);
  work.unmap(0xf_c000 as IovaPage, 256);
  return { units, hash };
}

type Measured = (work: Work, phys: Float64Array, units: number) => Result;

/** One contender a format. */
const onEach = (measured: Measured): Contender[] =>
  FORMATS.map(([name, layout]) => ({
    name,
    prepare: (random) => {
      const work = new Work(layout());
      const phys = shuffledPages(random.fork("pages"));
      return (units) => measured(work, phys, units);
    },
  }));

/** Every format and both ways to link, in turn, in one process and in one call site. */
function mixed(random: Random): (units: number) => Result {
  const works = FORMATS.map(([, layout]) => new Work(layout()));
  const phys = shuffledPages(random.fork("pages"));
  return (units) => {
    let [hash, done] = [HASH, 0];
    for (let turn = 0; done < units; turn++) {
      const work = works[turn % works.length]!;
      const result = (turn & 1) === 0 ? twoStep(work, phys, 4096) : vector(work, phys, 4096);
      hash = fold(hash, result.hash);
      done += result.units;
    }
    return { units: done, hash };
  };
}

/** All formats, and C for the first of them. */
const benchOf = (
  name: string,
  native: string,
  measured: Measured,
  more: Pick<Bench, "unit" | "full" | "goal">,
): Bench => ({
  name: `pagetable: ${name}`,
  smoke: 4096,
  contenders: [...onEach(measured), { name: "C", native }],
  ...more,
});

export const benches: readonly Bench[] = [
  benchOf("link 256 pages one by one, unmap", "pt-two-step", twoStep, {
    unit: "page",
    full: 4_000_000,
    goal: { number: 1, peer: "C", atMost: 3 },
  }),
  benchOf("link 256 pages as a vector, unmap", "pt-vector", vector, {
    unit: "page",
    full: 4_000_000,
    goal: { number: 3, peer: "C", atMost: 1.3 },
  }),
  benchOf("map and unmap 512 pages", "pt-512", (work, _phys, units) => whole(work, units), {
    unit: "page",
    full: 8_000_000,
  }),
  benchOf("map and unmap 256 x 2 MiB", "pt-superpage", (work, _phys, units) => superpages(work, units), {
    unit: "superpage",
    full: 4_000_000,
  }),
  ...(["random", "sequential"] as const).map(
    (order): Bench => ({
      name: `pagetable: look up, ${order}`,
      unit: "look-up",
      smoke: 4096,
      full: 4_000_000,
      contenders: [
        ...FORMATS.map(([name, layout]) => ({ name, prepare: lookups(layout(), order) })),
        { name: "C", native: `pt-lookup-${order}` },
      ],
    }),
  ),
  benchOf("unmap and map one page", "pt-relink", relink, { unit: "page", full: 1_000_000 }),
  {
    name: "pagetable: three formats, both ways to link",
    unit: "page",
    smoke: 8192,
    full: 4_000_000,
    contenders: [{ name: "all", prepare: mixed }],
  },
];
